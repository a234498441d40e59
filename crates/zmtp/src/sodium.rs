//! libsodium: Curve25519, XSalsa20 and Poly1305, as NaCl's `crypto_box` and `crypto_secretbox` combine them.

#![expect(unsafe_code, reason = "calls libsodium, which libzmq uses for CURVE as well")]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_ulonglong, c_void};
use std::sync::Once;

use zeroize::Zeroizing;

use crate::key::KEY_LEN;

/// Bytes of a nonce (`crypto_box_NONCEBYTES`).
pub(crate) const NONCE_LEN: usize = 24;

/// Bytes of an authentication tag (`crypto_box_MACBYTES`).
pub(crate) const TAG_LEN: usize = 16;

/// A nonce: never used twice with the same key.
pub(crate) type Nonce = [u8; NONCE_LEN];

/// The key that two sides share, derived from one's secret key and the other's public key; or a key of one side only.
#[derive(Clone)]
pub(crate) struct SharedKey(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedKey(…)")
    }
}

/// The ciphertext was not made with this key and nonce, or was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenError;

// <https://doc.libsodium.org/>: "Authenticated encryption", "Point*scalar multiplication", "Generating random data".
#[link(name = "sodium")]
unsafe extern "C" {
    fn sodium_init() -> c_int;
    fn sodium_version_string() -> *const c_char;
    fn randombytes_buf(buf: *mut c_void, size: usize);
    fn crypto_scalarmult_base(q: *mut c_uchar, n: *const c_uchar) -> c_int;
    fn crypto_box_beforenm(k: *mut c_uchar, pk: *const c_uchar, sk: *const c_uchar) -> c_int;
    fn crypto_secretbox_detached(
        c: *mut c_uchar,
        mac: *mut c_uchar,
        m: *const c_uchar,
        mlen: c_ulonglong,
        n: *const c_uchar,
        k: *const c_uchar,
    ) -> c_int;
    fn crypto_secretbox_open_detached(
        m: *mut c_uchar,
        c: *const c_uchar,
        mac: *const c_uchar,
        clen: c_ulonglong,
        n: *const c_uchar,
        k: *const c_uchar,
    ) -> c_int;
}

/// Chooses the implementations for this processor, once.
fn init() {
    static INIT: Once = Once::new();
    // SAFETY: may be called at any time, from any thread. It fails only if the system has no random numbers, and then
    // `randombytes_buf` ends the program.
    INIT.call_once(|| _ = unsafe { sodium_init() });
}

/// The version of libsodium at run time, such as `1.0.18`.
#[must_use]
pub fn version() -> String {
    // SAFETY: the text is static and ends with a zero.
    unsafe { CStr::from_ptr(sodium_version_string()) }.to_string_lossy().into_owned()
}

/// Fills `buf` with random bytes of the system.
pub(crate) fn random(buf: &mut [u8]) {
    init();
    // SAFETY: writes `buf.len()` bytes.
    unsafe { randombytes_buf(buf.as_mut_ptr().cast(), buf.len()) }
}

/// The public key of a secret key: RFC 7748, section 6.1.
pub(crate) fn public_key(secret: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    init();
    let mut public = [0; KEY_LEN];
    // SAFETY: both have `crypto_scalarmult_BYTES`. The result is always 0 for this function.
    unsafe { crypto_scalarmult_base(public.as_mut_ptr(), secret.as_ptr()) };
    public
}

impl SharedKey {
    /// The key of two sides; none if `public` is a point of small order, with which the key would not be secret.
    pub(crate) fn derive(public: &[u8; KEY_LEN], secret: &[u8; KEY_LEN]) -> Option<Self> {
        init();
        let mut shared = Zeroizing::new([0; KEY_LEN]);
        // SAFETY: all three have `crypto_box_BEFORENMBYTES`.
        let result = unsafe { crypto_box_beforenm(shared.as_mut_ptr(), public.as_ptr(), secret.as_ptr()) };
        (result == 0).then_some(Self(shared))
    }

    /// Encrypts `buf` in place, and returns its tag.
    pub(crate) fn seal(&self, nonce: &Nonce, buf: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        let text = buf.as_mut_ptr();
        // SAFETY: plaintext and ciphertext may be the same memory; both have `buf.len()` bytes, the tag
        // `crypto_secretbox_MACBYTES`, nonce and key the lengths of their types. The result is always 0.
        unsafe {
            crypto_secretbox_detached(
                text,
                tag.as_mut_ptr(),
                text,
                buf.len() as c_ulonglong,
                nonce.as_ptr(),
                self.0.as_ptr(),
            )
        };
        tag
    }

    /// Decrypts `buf` in place, unless it was not encrypted with this key and nonce; then it stays as it was.
    pub(crate) fn open(&self, nonce: &Nonce, tag: &[u8; TAG_LEN], buf: &mut [u8]) -> Result<(), OpenError> {
        let text = buf.as_mut_ptr();
        // SAFETY: as in `seal`.
        let result = unsafe {
            crypto_secretbox_open_detached(
                text,
                text,
                tag.as_ptr(),
                buf.len() as c_ulonglong,
                nonce.as_ptr(),
                self.0.as_ptr(),
            )
        };
        if result == 0 { Ok(()) } else { Err(OpenError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of NaCl's documentation ("Cryptography in NaCl", sections 2 to 10).
    #[test]
    fn the_example_of_nacl() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let key = |text: &str| <[u8; KEY_LEN]>::try_from(hex(text)).unwrap();
        let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let nonce: Nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().unwrap();
        let plain = hex(concat!(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a",
            "1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057",
            "e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040",
            "e082f937763848645e0705"
        ));
        let shared = SharedKey::derive(&public_key(&bob), &alice).unwrap();
        let mut buf = plain.clone();
        let tag = shared.seal(&nonce, &mut buf);
        assert_eq!(tag, *hex("f3ffc7703f9400e52a7dfb4b3d3305d9"));
        assert_eq!(buf[..8], *hex("8e993b9f48681273"));
        let other = SharedKey::derive(&public_key(&alice), &bob).unwrap();
        assert_eq!(other.open(&nonce, &tag, &mut buf), Ok(()));
        assert_eq!(buf, plain);
    }

    #[test]
    fn changed_ciphertext_is_refused_and_left_alone() {
        let key = SharedKey(Zeroizing::new([9; KEY_LEN]));
        let mut buf = *b"packet";
        let tag = key.seal(&[1; NONCE_LEN], &mut buf);
        let sealed = buf;
        assert_eq!(key.open(&[2; NONCE_LEN], &tag, &mut buf), Err(OpenError));
        buf[0] ^= 1;
        assert_eq!(key.open(&[1; NONCE_LEN], &tag, &mut buf), Err(OpenError));
        buf[0] ^= 1;
        assert_eq!(buf, sealed);
        assert_eq!(key.open(&[1; NONCE_LEN], &tag, &mut buf), Ok(()));
    }

    #[test]
    fn a_public_key_of_small_order_has_no_shared_key() {
        assert!(SharedKey::derive(&[0; KEY_LEN], &[7; KEY_LEN]).is_none());
    }
}
