//! The public listener, and what is tracked.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::Deserialize;
use url::{Host, Url};

use super::settings::{Config, ConfigError, refuse};
use crate::domain::tracking::{BUILT_IN, MachineRules, networks};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicSettings {
    pub listen: SocketAddr,
    pub url: String,
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub substitution_url: String,
    pub link_days: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingSettings {
    pub opens: bool,
    pub clicks: bool,
    pub mirror_link: String,
    pub rules_file: PathBuf,
}

impl PublicSettings {
    /// What keeps recipients from opting out with one click: whoever prepares a delivery should know.
    pub fn fault(&self) -> Option<&'static str> {
        let url = Url::parse(&self.url).ok()?;
        let is_here =
            |ip: IpAddr| ip.to_canonical().is_loopback() || ip.to_canonical().is_unspecified();
        let is_unreachable = match url.host()? {
            Host::Domain(name) => {
                name.trim_end_matches('.').rsplit('.').next() == Some("localhost")
            }
            Host::Ipv4(ip) => is_here(ip.into()),
            Host::Ipv6(ip) => is_here(ip.into()),
        };
        if is_unreachable {
            return Some(
                "no recipient can reach this machine under its own address: links and opt-outs will not work. \
                 Set public.url to where they reach the public listener, such as \"https://mail.example.com\"",
            );
        }
        (url.scheme() != "https").then_some(
            "public.url is not https: mail programs then offer no opt-out in one click (RFC 8058), which large providers ask of bulk mail",
        )
    }
}

impl TrackingSettings {
    /// What tells humans from machines.
    ///
    /// # Errors
    /// Why the file of `rules_file` cannot be used.
    pub fn rules(&self) -> Result<MachineRules, ConfigError> {
        let refuse = |reason: String| {
            refuse("tracking.rules_file", format!("{}: {reason}", self.rules_file.display()))
        };
        if self.rules_file.as_os_str().is_empty() {
            return MachineRules::parse(BUILT_IN).map_err(refuse);
        }
        let text = std::fs::read_to_string(&self.rules_file).map_err(|e| refuse(e.to_string()))?;
        MachineRules::parse(&text).map_err(refuse)
    }
}

impl Config {
    pub(super) fn check_tracking(&self) -> Result<(), ConfigError> {
        for (setting, url) in [
            ("public.url", &self.public.url),
            ("public.substitution_url", &self.public.substitution_url),
        ] {
            let parsed = Url::parse(url);
            let usable =
                parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !url.is_empty() && (!usable || !url.is_ascii() || url.len() > 200) {
                return Err(refuse(
                    setting,
                    "must be an http or https URL of at most 200 ASCII characters, or empty",
                ));
            }
            if Url::parse(url)
                .is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
            {
                return Err(refuse(
                    setting,
                    "must hold no user name or password: it goes to every recipient",
                ));
            }
        }
        if self.public.url.contains(['?', '#']) {
            return Err(refuse("public.url", "must have neither query nor fragment"));
        }
        if !(1..=36_500).contains(&self.public.link_days) {
            return Err(refuse(
                "public.link_days",
                format!("must be 1..36500, is {}", self.public.link_days),
            ));
        }
        let link = &self.tracking.mirror_link;
        if link.chars().count() > 200 || link.contains(char::is_control) {
            return Err(refuse(
                "tracking.mirror_link",
                "must have at most 200 printable characters",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_recipients_cannot_reach_or_not_over_tls_are_faults() {
        let fault = |url: &str| {
            let config = Config::from_toml(&format!("[public]\nurl = {url:?}")).expect("settings");
            config.public.fault().map(|fault| fault.split(' ').next().unwrap_or_default())
        };
        for here in [
            "127.1.2.3:8027",
            "0.0.0.0",
            "[::1]",
            "[::]:80",
            "[::ffff:127.0.0.1]",
            "LocalHost",
            "a.localhost.",
            "127.1",
        ] {
            assert_eq!(fault(&format!("https://{here}/x")), Some("no"), "{here}");
        }
        assert_eq!(fault("http://127.0.0.1"), Some("no"));
        assert_eq!(
            (fault("http://mail.example.com"), fault("http://10.0.0.1")),
            (Some("public.url"), Some("public.url"))
        );
        assert_eq!(
            (fault("https://mail.example.com/x"), fault("https://notlocalhost")),
            (None, None)
        );
    }

    #[test]
    fn no_password_is_sent_to_every_recipient() {
        for setting in ["url", "substitution_url"] {
            for secret in ["user:pw@", "user@", ":pw@"] {
                let refused = Config::from_toml(&format!(
                    "[public]\n{setting} = \"https://{secret}mail.example.com\""
                ));
                let refused = refused.expect_err("it holds a secret");
                assert_eq!(refused.setting, format!("public.{setting}"));
                assert!(!refused.reason.contains("pw"), "{}", refused.reason);
            }
        }
    }
}
