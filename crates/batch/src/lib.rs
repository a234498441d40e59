//! Many packets, one message: encode, decode, when a batch closes.
