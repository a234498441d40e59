//! Why a collector refuses a capture, as it says it in the handshake (`ERROR`, RFC 37).

/// The capture's key is not in `AUTHORIZED_KEYS`: ZAP's status code for a refused credential (RFC 27), which libzmq
/// understands.
pub(crate) const UNKNOWN_KEY: &str = "400";

/// The capture's key may not use its `SOURCE_NAME`.
pub(crate) const UNAUTHORIZED_NAME: &str = "SOURCE_NAME not allowed";
