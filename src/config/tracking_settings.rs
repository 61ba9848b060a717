//! The settings of the public listener and of tracking.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::Deserialize;
use url::{Host, Url};

use super::config_error::{ConfigError, refuse};
use crate::domain::tracking::{BUILT_IN, MachineRules, networks};

/// `[public]`: the listener for recipients.
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

/// `[tracking]`: what is tracked, and the rules that tell humans from machines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingSettings {
    pub opens: bool,
    pub clicks: bool,
    pub mirror_link: String,
    pub rules_file: PathBuf,
}

impl PublicSettings {
    /// Why recipients cannot opt out with one click under `url`, if they cannot. A preparation
    /// warns of it, unless the built-in catcher takes the mail. An empty `url` has no fault.
    pub fn fault(&self) -> Option<&'static str> {
        let url = Url::parse(&self.url).ok()?;
        let is_local =
            |ip: IpAddr| ip.to_canonical().is_loopback() || ip.to_canonical().is_unspecified();
        let is_unreachable = match url.host()? {
            Host::Domain(name) => {
                name.trim_end_matches('.').rsplit('.').next() == Some("localhost")
            }
            Host::Ipv4(ip) => is_local(ip.into()),
            Host::Ipv6(ip) => is_local(ip.into()),
        };
        if is_unreachable {
            return Some(
                "no recipient can reach this machine under its own address: links and opt-outs \
                 will not work. Set public.url to the address under which recipients reach the \
                 public listener, such as \"https://mail.example.com\"",
            );
        }
        (url.scheme() != "https").then_some(
            "public.url is not https: mail programs then offer no opt-out with one click \
             (RFC 8058), which large providers require of bulk mail",
        )
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_url("public.url", &self.url)?;
        check_url("public.substitution_url", &self.substitution_url)?;
        if self.url.contains(['?', '#']) {
            return Err(refuse("public.url", "must have neither query nor fragment"));
        }
        if !(1..=36_500).contains(&self.link_days) {
            return Err(refuse(
                "public.link_days",
                format!("must be 1..36500, is {}", self.link_days),
            ));
        }
        Ok(())
    }
}

/// Checks a URL that recipients can see. It may be empty.
fn check_url(setting: &str, url: &str) -> Result<(), ConfigError> {
    let parsed = Url::parse(url);
    let usable =
        parsed.as_ref().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !url.is_empty() && (!usable || !url.is_ascii() || url.len() > 200) {
        return Err(refuse(
            setting,
            "must be an http or https URL of at most 200 ASCII characters, or empty",
        ));
    }
    if parsed.is_ok_and(|url| !url.username().is_empty() || url.password().is_some()) {
        return Err(refuse(setting, "must hold no user name or password: recipients can see it"));
    }
    Ok(())
}

impl TrackingSettings {
    /// The rules that tell humans from machines: those of `rules_file`, or the built-in ones.
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

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let link = &self.mirror_link;
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

    fn public(url: &str, substitution_url: &str) -> PublicSettings {
        PublicSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            url: url.to_owned(),
            trusted_proxies: Vec::new(),
            substitution_url: substitution_url.to_owned(),
            link_days: 400,
        }
    }

    #[test]
    fn an_unreachable_or_unencrypted_address_is_a_fault() {
        let fault = |url: &str| {
            public(url, "").fault().map(|fault| fault.split(' ').next().unwrap_or_default())
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
    fn a_url_with_a_password_is_refused() {
        for secret in ["user:pw@", "user@", ":pw@"] {
            let url = format!("https://{secret}mail.example.com");
            for (settings, setting) in
                [(public(&url, ""), "public.url"), (public("", &url), "public.substitution_url")]
            {
                let refused = settings.check().expect_err("it holds a secret");
                assert_eq!(refused.setting, setting);
                assert!(!refused.reason.contains("pw"), "{}", refused.reason);
            }
        }
    }
}
