//! Where packets leave: PUSH, pcap, pcapng.
