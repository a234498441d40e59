use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::watched::Look;
use super::*;

/// The hash of `secret`, of the lowest cost.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";

/// A directory with the certificates of `testdata`, removed at the end. Only the owner may read the keys.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pcktr-web-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).unwrap() {
            let name = entry.unwrap().file_name();
            let copy = path.join(&name);
            fs::copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(&name), &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self(path)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str) -> Result<WebConfig, WebConfigError> {
        WebConfig::load_at(&self.write("web.yml", text), in_year(2030))
    }

    /// The error of a configuration, without the paths of this directory.
    fn error(&self, text: &str) -> String {
        self.load(text).map(drop).unwrap_err().to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn in_year(year: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952 + 86_400)
}

/// Checks the error of a text, without its prefix.
fn check(text: &str, expected: &str) {
    let error = WebConfig::check(text).unwrap_err().to_string();
    assert_eq!(error.strip_prefix("WEB_CONFIG_FILE: -:"), Some(expected), "{text}");
}

#[test]
fn valid_configurations() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "basic_auth_users:\n",
        "tls_server_config:\n",
        &format!("basic_auth_users:\n  prometheus: {HASH}\n  \"with space\": '{HASH}'\n"),
        TLS,
        "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10, max_version: TLS12}",
        "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [TLS_AES_128_GCM_SHA256], \
         curve_preferences: [CurveP256, X25519], prefer_server_cipher_suites: false}",
        "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert, \
         client_ca_file: c, client_allowed_sans: [a.example]}",
        "http_server_config: {http2: false, headers: {X-Frame-Options: deny, X-XSS-Protection: '1'}}",
    ] {
        assert!(WebConfig::check(text).is_ok(), "{text}: {:?}", WebConfig::check(text));
    }
}

#[test]
fn syntax_errors() {
    check(
        "a: [",
        "2: is not valid YAML: while parsing a node, did not find expected node content (see https://yaml.org, or check the indentation)",
    );
    check("- a", "1: `the document` is not a map (write `key: value` below it)");
    check(
        "\nbasic_auth_user: {}",
        "2: `basic_auth_user` is not a valid key (use `tls_server_config`, `http_server_config`, `basic_auth_users`)",
    );
    check(
        "http_server_config:\n  http2: true\n  http2: true\n",
        "3: `http2` is given twice (remove one of them)",
    );
    check(
        "a: *b",
        "1: is not valid YAML: while parsing node, found unknown anchor (see https://yaml.org, or check the indentation)",
    );
    check(
        "http_server_config: &a {}\nbasic_auth_users: *a\n",
        "2: contains a YAML alias, which is not supported (repeat the value)",
    );
    check("basic_auth_users: !!map {}", "1: contains a YAML tag, which is not supported (remove the `!…`)");
    check("{}\n---\n{}\n", "2: contains a second YAML document (remove everything from the second `---`)");
    check("? [a]\n: b\n", "1: contains a key that is not a text (write `name: value`)");
    check(&"[".repeat(100), "1: is nested too deeply (a web configuration has four levels)");
}

#[test]
fn errors_are_printable() {
    check(
        "tls_server_config: {\"a\\e[31m\\nb\": 1}",
        &format!(
            "1: `a\\u{{1b}}[31m\\nb` is not a valid key in tls_server_config (use {})",
            "`cert_file`, `key_file`, `client_auth_type`, `client_ca_file`, `client_allowed_sans`, `min_version`, \
             `max_version`, `cipher_suites`, `curve_preferences`, `prefer_server_cipher_suites`"
        ),
    );
}

#[test]
fn invalid_tls_settings() {
    let tls = |rest: &str| format!("tls_server_config:\n  cert_file: a\n  key_file: b\n  {rest}\n");
    check(
        "tls_server_config: {key_file: b}",
        "1: `cert_file` is missing in tls_server_config (name the file with the certificate)",
    );
    check(
        "tls_server_config: {cert_file: b}",
        "1: `key_file` is missing in tls_server_config (name the file with the private key)",
    );
    check(
        &tls("min_version: TLS14"),
        "4: `min_version`: `TLS14` is not a valid value (use TLS13, TLS12, TLS11, TLS10)",
    );
    check(&tls("max_version: TLS11"), "4: `max_version`: `TLS11` is not a valid value (use TLS13, TLS12)");
    check(
        &tls("min_version: TLS13\n  max_version: TLS12"),
        "5: `max_version` is lower than `min_version` (exchange them)",
    );
    check(
        &tls("client_auth_type: Require"),
        "4: `client_auth_type`: `Require` is not a valid value (use NoClientCert, RequestClientCert, \
         RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert)",
    );
    check(
        &tls("client_auth_type: VerifyClientCertIfGiven"),
        "1: `client_ca_file` is missing in tls_server_config (name the file with the certificates of the clients' CA)",
    );
    check(
        &tls("client_ca_file: c"),
        "4: `client_ca_file` has no effect without a `client_auth_type` (use RequireAndVerifyClientCert)",
    );
    check(
        &tls("client_auth_type: RequestClientCert\n  client_allowed_sans: [a]"),
        "5: `client_allowed_sans` has no effect with this `client_auth_type` (use RequireAndVerifyClientCert)",
    );
    check(
        &tls("cipher_suites:\n  - TLS_RSA_WITH_AES_128_CBC_SHA"),
        "5: `cipher_suites`: `TLS_RSA_WITH_AES_128_CBC_SHA` is not a valid value (use TLS_AES_256_GCM_SHA384, \
         TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
         TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, \
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, \
         TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)",
    );
    check(
        &tls("curve_preferences: [CurveP521]"),
        "4: `curve_preferences`: `CurveP521` is not a valid value (use X25519, CurveP256, CurveP384)",
    );
    assert!(WebConfig::check(&tls("key: |\n    secret")).is_err());
    check(
        &tls("prefer_server_cipher_suites: 1"),
        "4: `prefer_server_cipher_suites` is not a boolean (use `true` or `false`)",
    );
    check(&tls("cipher_suites: x"), "4: `cipher_suites` is not a list (write `[a, b]`)");
}

#[test]
fn invalid_users_and_headers() {
    let users = |rest: &str| format!("basic_auth_users:\n  {rest}\n");
    let no_hash = "2: the password of user `a` is not a bcrypt hash (create one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`)";
    check(&users("a: secret"), no_hash);
    check(&users("a: $2y$10$short"), no_hash);
    check(&users("a: $1$salt$qJH7.N4xYta3aEG/dfqo/0"), no_hash);
    check(&users("a:\n"), "2: `a` is not a text (write the value behind the colon)");
    check(
        &users(&format!("a: {}", HASH.replace("$04$", "$31$"))),
        "2: the bcrypt hash of user `a` has cost 31 (create one with a cost of 4 to 16: each step doubles the time for a check)",
    );
    check(
        &users(&format!("'a:b': {HASH}")),
        "2: user name `a:b` contains a colon or a control character (choose another name)",
    );
    check(&users(&format!("a: {HASH}\n  a: {HASH}")), "3: `a` is given twice (remove one of them)");
    check(
        "http_server_config: {headers: {Server: x}}",
        "1: `Server` is not a valid key in headers (use `Content-Security-Policy`, `Strict-Transport-Security`, \
         `X-Content-Type-Options`, `X-Frame-Options`, `X-XSS-Protection`)",
    );
    check(
        "http_server_config: {headers: {X-Frame-Options: allow}}",
        "1: `X-Frame-Options`: `allow` is not a valid value (use deny, sameorigin)",
    );
}

#[test]
fn files_are_checked() {
    let directory = Directory::new();
    let tls = |cert: &str, key: &str| format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n");
    let check = |text: &str, expected: &str| {
        assert_eq!(directory.error(text), format!("WEB_CONFIG_FILE: web.yml:{expected}"));
    };
    check(
        &tls("none.pem", "server.key"),
        "2: `cert_file`: `none.pem` cannot be read: No such file or directory (os error 2) (the file must exist and be readable by this user)",
    );
    check(
        &tls(".", "server.key"),
        "2: `cert_file`: `.` is not a regular file smaller than 1024 KiB (check the path)",
    );
    check(
        &tls("server.key", "server.key"),
        "2: `cert_file`: `server.key` contains no certificate (it must contain `-----BEGIN CERTIFICATE-----`)",
    );
    check(
        &tls("server.pem", "server.pem"),
        "3: `key_file`: `server.pem` contains no private key (it must contain `-----BEGIN PRIVATE KEY-----`)",
    );
    check(
        &tls("server.pem", "encrypted.key"),
        "3: `key_file`: `encrypted.key` is encrypted with a passphrase (decrypt it: `openssl pkey -in KEY -out NEW`)",
    );
    check(
        &tls("server.pem", "client.key"),
        "3: `key_file`: `client.key` is not the key of the certificate in `cert_file` (use the key that the certificate was issued for)",
    );
    directory.write("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(
        directory
            .error(&tls("bad.pem", "server.key"))
            .contains("`bad.pem` contains an invalid certificate: ")
    );
    directory.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(directory.error(&tls("cut.pem", "server.key")).contains("`cut.pem` is not valid PEM: "));
    check(
        &format!(
            "{}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: server.key\n",
            tls("server.pem", "server.key")
        ),
        "5: `client_ca_file`: `server.key` contains no certificate (it must contain `-----BEGIN CERTIFICATE-----`)",
    );
    assert!(directory.load(&tls("server.pem", "server.key")).is_ok());
}

#[test]
fn key_that_everybody_may_read_is_rejected() {
    let directory = Directory::new();
    for mode in [0o644, 0o604, 0o602, 0o660 | 0o001] {
        directory.set_mode("server.key", mode);
        assert_eq!(
            directory.error(TLS),
            format!(
                "WEB_CONFIG_FILE: web.yml:1: `key_file`: `server.key` can be read or written by every user of this host: its \
                 mode is {mode:04o} (run `chmod 600`; in Kubernetes, set `defaultMode: 0440` and `fsGroup`)"
            )
        );
    }
    for mode in [0o400, 0o440, 0o600, 0o640] {
        directory.set_mode("server.key", mode);
        assert!(directory.load(TLS).is_ok(), "{mode:o}");
    }
}

#[test]
fn certificate_must_be_valid_now() {
    let directory = Directory::new();
    let path = directory.write("web.yml", TLS);
    let error = |year| WebConfig::load_at(&path, in_year(year)).map(drop).unwrap_err().to_string();
    assert!(error(2125).ends_with("/server.pem` expired at 2120-01-01T00:00:00Z (renew the certificate)"));
    assert!(
        error(2010).ends_with(
            "/server.pem` is not valid before 2020-01-01T00:00:00Z (check this host's clock, or issue the certificate again)"
        )
    );
    let config = WebConfig::load_at(&path, in_year(2030)).unwrap();
    let seconds = config.expiry().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds, 4_733_510_400);
}

#[test]
fn passwords_are_checked() {
    let other = bcrypt::hash("other", 5).unwrap();
    let directory = Directory::new();
    let config = directory.load(&format!("basic_auth_users:\n  a: {HASH}\n  b: {other}\n")).unwrap();
    let users = config.users();
    for (user, password, valid) in [
        ("a", "secret", true),
        ("b", "other", true),
        ("a", "other", false),
        ("a", "", false),
        ("a", "Secret", false),
        ("c", "secret", false),
        ("", "", false),
    ] {
        assert_eq!(users.check(user, password.as_bytes()), valid, "{user} {password}");
    }
    let debug = format!("{users:?}");
    assert!(debug.contains('a') && !debug.contains('$'), "{debug}");
}

#[test]
fn unknown_users_have_the_hash_of_no_password() {
    let directory = Directory::new();
    let config = directory.load(&format!("basic_auth_users: {{a: {HASH}}}")).unwrap();
    assert_eq!(config.users().hash("a"), HASH);
    let none = config.users().hash("b");
    assert_eq!(none.len(), HASH.len());
    assert!(bcrypt::verify("", none).is_err(), "{none}");
}

/// The result of a handshake with a client that has these certificates, named as their files.
fn handshake(config: &WebConfig, certificate: Option<&str>) -> Result<(), rustls::Error> {
    let file = |name: String| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem".into())).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier);
    let client = match certificate {
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(file(format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(file(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("server.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(config.tls().unwrap())).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn client_certificates() {
    let directory = Directory::new();
    let ca = "client_ca_file: ca.pem";
    for (policy, none, client, stranger) in [
        ("NoClientCert", true, true, true),
        ("RequestClientCert", true, true, true),
        ("RequireAnyClientCert", false, true, true),
        (&format!("VerifyClientCertIfGiven, {ca}"), true, true, false),
        (&format!("RequireAndVerifyClientCert, {ca}"), false, true, false),
        (
            &format!(
                "RequireAndVerifyClientCert, {ca}, client_allowed_sans: [other.example, client.example]"
            ),
            false,
            true,
            false,
        ),
        (&format!("RequireAndVerifyClientCert, {ca}, client_allowed_sans: ['::1']"), false, true, false),
        (
            &format!("RequireAndVerifyClientCert, {ca}, client_allowed_sans: ['spiffe://example/client']"),
            false,
            true,
            false,
        ),
        (&format!("RequireAndVerifyClientCert, {ca}, client_allowed_sans: [example]"), false, false, false),
    ] {
        let config = directory.load(&TLS.replace('}', &format!(", client_auth_type: {policy}}}"))).unwrap();
        let accepted = [None, Some("client"), Some("stranger")].map(|name| handshake(&config, name).is_ok());
        assert_eq!(accepted, [none, client, stranger], "{policy}");
    }
}

#[test]
fn versions_and_groups_are_those_chosen() {
    let directory = Directory::new();
    let with = |rest: &str| directory.load(&TLS.replace('}', &format!(", {rest}}}"))).unwrap();
    // The client offers TLS 1.2 and 1.3 and all groups.
    for rest in
        ["min_version: TLS13", "max_version: TLS12", "curve_preferences: [CurveP384]", "min_version: TLS11"]
    {
        handshake(&with(rest), None).unwrap();
    }
    // Suites for RSA, but the certificate has an ECDSA key.
    let suites = "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], max_version: TLS12";
    assert!(handshake(&with(suites), None).is_err());
}

/// Looks at the files until they no longer change. Returns whether another configuration is in force then.
fn reload(watched: &WatchedConfig) -> bool {
    let before = watched.in_force();
    while watched.reload(in_year(2030)) == Look::Changing {
        assert!(Arc::ptr_eq(&before, &watched.in_force()), "in force at the first look");
    }
    !Arc::ptr_eq(&before, &watched.in_force())
}

#[test]
fn configuration_is_reloaded_when_a_file_changes() {
    let directory = Directory::new();
    let watched = WatchedConfig::new(directory.load(TLS).unwrap());
    assert!(!reload(&watched), "nothing has changed");

    // A configuration that names another key, which everybody may read.
    fs::copy(directory.0.join("server.key"), directory.0.join("new.key")).unwrap();
    directory.set_mode("new.key", 0o644);
    directory.write("web.yml", &TLS.replace("server.key", "new.key"));
    assert!(!reload(&watched) && !watched.is_valid());

    // Only the file that the new configuration names is mended.
    directory.set_mode("new.key", 0o600);
    assert!(reload(&watched) && watched.is_valid());

    // A certificate is replaced by renaming another. Its key follows after a look: no error.
    fs::rename(directory.0.join("client.pem"), directory.0.join("server.pem")).unwrap();
    assert_eq!(watched.reload(in_year(2030)), Look::Changing);
    assert!(watched.is_valid());
    fs::rename(directory.0.join("client.key"), directory.0.join("new.key")).unwrap();
    assert!(reload(&watched) && watched.is_valid());
}

#[test]
fn file_that_is_still_being_written_has_no_effect() {
    let directory = Directory::new();
    let users = format!("basic_auth_users: {{a: {HASH}}}\n");
    let watched = WatchedConfig::new(directory.load(&users).unwrap());
    let before = watched.in_force();
    // Each is valid, and longer than the one before.
    for lines in 1..10 {
        directory.write("web.yml", &format!("{users}{}", "# more\n".repeat(lines)));
        assert_eq!(watched.reload(in_year(2030)), Look::Changing);
        assert!(Arc::ptr_eq(&before, &watched.in_force()) && watched.is_valid(), "{lines}");
    }
    assert_eq!(watched.reload(in_year(2030)), Look::Settled);
    assert!(!Arc::ptr_eq(&before, &watched.in_force()));
}

#[test]
fn reload_does_not_open_the_port() {
    let directory = Directory::new();
    let users = format!("basic_auth_users: {{a: {HASH}}}\n");
    let clients = TLS.replace(
        '}',
        ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [a]}",
    );
    let no_names = clients.replace(", client_allowed_sans: [a]", "");
    let no_users = "basic_auth_users: {}\n";
    for (before, after, missing) in [
        (users.as_str(), "", "`basic_auth_users`"),
        (&users, "\0", "found unprintable character"),
        (&users, "---\n# disk full\n", "`basic_auth_users`"),
        (&users, "basic_auth_users:\n", "`basic_auth_users`"),
        (&users, no_users, "`basic_auth_users`"),
        (TLS, "", "`tls_server_config`"),
        (TLS, "tls_server_config:\n", "`tls_server_config`"),
        (TLS, &users, "`tls_server_config`"),
        (&format!("{TLS}{users}"), TLS, "`basic_auth_users`"),
        (&clients, TLS, "`client_auth_type: RequireAndVerifyClientCert`"),
        (&clients, &no_names, "`client_allowed_sans`"),
    ] {
        let watched = WatchedConfig::new(directory.load(before).unwrap());
        directory.write("web.yml", after);
        assert!(!reload(&watched) && !watched.is_valid(), "{after:?} replaces {before:?}");
        let current = watched.in_force();
        let loaded = WebConfig::load_at(current.path(), in_year(2030));
        let error = loaded.and_then(|config| config.replaces(&current)).map(drop).unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
        // Protection may be added, and other things changed.
        directory.write("web.yml", &format!("{}{users}", if before == users { "" } else { &clients }));
        assert!(reload(&watched) && watched.is_valid(), "after {after:?} in place of {before:?}");
    }
    assert_eq!(
        ConfigFault::Unprotected("basic_auth_users").to_string(),
        "`basic_auth_users` is missing, and in force (restore it; to open the port on purpose, restart the program)"
    );
}

#[test]
fn files_that_are_read_again_are_listed() {
    let directory = Directory::new();
    let paths = directory.load(TLS).unwrap().paths();
    assert!(paths.iter().all(|path| path.starts_with(&directory.0)), "{paths:?}");
    assert!(paths.contains(&directory.0.join("server.pem")), "{paths:?}");
}
