//! Finds the links of a rendered HTML part that a reader cannot follow.

use lol_html::{HtmlRewriter, Settings, element};
use url::Url;

/// The schemes that mail programs open.
const SCHEMES: [&str; 5] = ["https", "http", "mailto", "tel", "sms"];
/// The most faults that are listed.
const MAX_FAULTS: usize = 10;

/// The links of `html` that cannot be followed, each with the reason; at most the first ten.
pub fn faults(html: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |link: &str| {
        if let Some(reason) = fault(link)
            && faults.len() < MAX_FAULTS
        {
            faults.push(format!("the link {link:?} {reason}"));
        }
    };
    let settings = Settings::new().append_element_content_handler(element!(
        "a[href], area[href]",
        |element| {
            check(&element.get_attribute("href").unwrap_or_default());
            Ok(())
        }
    ));
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| {});
    // Links after a place that the parser cannot read are ignored: mail programs fail there, too.
    match rewriter.write(html.as_bytes()) {
        Ok(()) => drop(rewriter.end()),
        Err(_) => drop(rewriter),
    }
    faults
}

fn fault(link: &str) -> Option<&'static str> {
    let link = link.trim();
    if link.starts_with('#') && link.len() > 1 {
        return None;
    }
    match Url::parse(&link.replace("&amp;", "&")) {
        Ok(url) if !SCHEMES.contains(&url.scheme()) => {
            Some("has a scheme that mail programs do not open")
        }
        Ok(_) => None,
        Err(url::ParseError::RelativeUrlWithoutBase) => Some("is not absolute"),
        Err(_) => Some("is not a URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_cannot_be_followed_are_listed() {
        let good = "<a href='https://a.example/?a=1&amp;b=2'>x</a>\
                    <a href=mailto:a@b.example>x</a><a href=\"#top\">x</a><a name=top>x</a>";
        assert_eq!(faults(good), Vec::<String>::new());
        for (html, reason) in [
            ("<p><a href='/autumn'>x</a>", "is not absolute"),
            ("<A HREF='www.shop.example'>x</A>", "is not absolute"),
            ("<a href=''>x</a>", "is not absolute"),
            ("<a href='javascript:alert(1)'>x</a>", "scheme"),
            ("<map><area href='https://'></map>", "is not a URL"),
        ] {
            let found = faults(html);
            assert!(found.len() == 1 && found[0].contains(reason), "{html}: {found:?}");
        }
    }
}
