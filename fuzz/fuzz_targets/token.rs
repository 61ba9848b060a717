//! Unsigned tokens are refused, and signed ones give only roles that their issuer may give.
#![no_main]

use std::sync::OnceLock;

use jsonwebtoken::{EncodingKey, Header, encode};
use libfuzzer_sys::fuzz_target;
use versand::{config::Config, domain::Role, identity::Keyring};

const KEY: &[u8] = b"a key of thirty-two bytes or more";

fn keyring() -> &'static Keyring {
    static KEYRING: OnceLock<Keyring> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("versand-fuzz-{}", std::process::id()));
        std::fs::write(&file, KEY).unwrap();
        let key = format!(
            "issuer = \"crm\", algorithm = \"HS256\", key_file = {file:?}, roles = [\"monitoring\"]"
        );
        let keyring = Keyring::new(
            &Config::from_toml(&format!("[auth]\njwt_keys = [{{ {key} }}]")).unwrap().auth,
        )
        .unwrap();
        std::fs::remove_file(file).unwrap();
        keyring
    })
}

fuzz_target!(|input: &str| {
    assert!(keyring().bearer(input).is_err(), "nobody signed it");
    assert!(keyring().job(input, "d", "x").is_err(), "nobody signed it");
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(input) else { return };
    let Ok(token) = encode(&Header::default(), &claims, &EncodingKey::from_secret(KEY)) else {
        return;
    };
    if let Ok(principal) = keyring().bearer(&token) {
        assert!(
            principal.roles.iter().all(|role| *role == Role::Monitoring),
            "{:?}",
            principal.roles
        );
        assert!(principal.name.starts_with("crm/"), "{}", principal.name);
    }
    if let Ok(claims) = keyring().job(&token, "d", "x") {
        assert_eq!((claims.delivery.as_deref(), claims.digest.as_deref()), (Some("d"), Some("x")));
    }
});
