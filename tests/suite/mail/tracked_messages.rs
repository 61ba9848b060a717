//! Tracked messages as Python's parser reads them: links, pixel, mirror link, opt-out.

use serde_json::{Value, json};
use versand::{
    domain::{delivery::Tracking, tracking::HitKind},
    mail::{
        links::{LinkPurpose, LinkToken, TokenHolder, TokenKey, TokenSigner},
        template::{MessageStamp, Template},
    },
};

use super::messages::{
    LIMIT_BYTES, check_bytes, compile, content, read_back, recipient, sender, stamp,
};

const URL: &str = "https://t.shop.example";

fn tracking(url: &str) -> Tracking {
    Tracking { url: url.into(), opens: true, clicks: true, mirror_link: "In a browser".into() }
}

fn tracked(html: Option<&str>, text: Option<&str>) -> Template {
    Template::compile(&sender(), &content("Hi", html, text), &tracking(URL), LIMIT_BYTES)
        .expect("compiles")
}

fn signer(recipient: u32) -> TokenSigner {
    let holder = TokenHolder { preparation: 7, recipient, is_proof: false };
    TokenKey::new(&[1; 32]).expect("a key").signer(
        &"0123456789abcdef".parse().expect("an id"),
        1,
        holder,
    )
}

fn signed(number: u32) -> MessageStamp {
    MessageStamp { signer: Some(signer(number)), ..stamp() }
}

fn url(number: u32, purpose: LinkPurpose) -> String {
    let mut url = format!("{URL}{}", purpose.path());
    signer(number).write(&mut url, purpose);
    url
}

fn part(read: &Value, number: usize) -> String {
    read["parts"][number][2].as_str().expect("a text").to_owned()
}

/// The values of the attribute, in order.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    html.split(&format!(" {name}=\"")).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_link_of_a_message_belongs_to_its_recipient() {
    let html = "<html><body><p>Dear {{ name }}</p>\n<p><a href='https://shop.example/a'>A</a>\n<a href='https://shop.example/{{ name }}'>B</a></p>\n\
                <p><a href=\"{{ unsubscribe_url }}\">Off</a> <a href=\"{{ mirror_url }}\">Page</a></p></body></html>";
    let text = "Dear {{ name }}: https://shop.example/a {{ unsubscribe_url }}\n{{ mirror_url }}";
    let template = tracked(Some(html), Some(text));
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..3 {
        // The values of the message win over merge fields of the same name.
        let to = recipient(
            json!({"name": "jö", "unsubscribe_url": "x", "mirror_url": "x", "__token": "x"}),
        );
        let message = template.render(&to, &signed(number)).expect("renders");
        assert_eq!(
            template.render(&to, &signed(number)).expect("renders"),
            message,
            "deterministic"
        );
        check_bytes(&message);
        let read = read_back(&message);
        assert_eq!(read["defects"], json!([]));
        let [mirror, first, second] =
            [LinkPurpose::Mirror, LinkPurpose::Click(0), LinkPurpose::Click(1)]
                .map(|purpose| url(number, purpose));
        let off = url(number, LinkPurpose::OptOut);
        let html = part(&read, 1);
        assert_eq!(attributes(&html, "href"), [&mirror, &first, &second, &off, &mirror]);
        assert_eq!(attributes(&html, "src"), [url(number, LinkPurpose::Open)]);
        assert_eq!(part(&read, 0), format!("Dear jö: https://shop.example/a {off}\n{mirror}"));
        let header = |name: &str| {
            read["headers"]
                .as_array()
                .expect("headers")
                .iter()
                .find(|h| h[0] == name)
                .expect("the header exists")[1]
                .clone()
        };
        assert_eq!(header("List-Unsubscribe"), format!("<{off}>"));
        assert_eq!(header("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
        assert_eq!(template.mirror(&to, &signed(number)).expect("renders"), html);
        assert!(seen.insert(message), "other recipients have other tokens");
    }
    let token = url(1, LinkPurpose::Click(1));
    let token = LinkToken::read(token.rsplit('/').next().expect("a token"), HitKind::Click)
        .expect("a token");
    assert!(signer(1).has_signed(&token) && token.purpose == LinkPurpose::Click(1));
}

#[test]
fn each_branch_of_a_template_with_a_document_of_its_own_has_mirror_link_and_pixel() {
    let branch = |text| format!("<html><body><p>{text}</p></body></html>");
    let html = format!(
        "{{% if lang == 'de' %}}{}{{% else %}}{}{{% endif %}}",
        branch("Hallo"),
        branch("Hello")
    );
    let template = tracked(Some(&html), Some("x"));
    for (lang, greeting) in [("de", "Hallo"), ("en", "Hello")] {
        let message =
            template.render(&recipient(json!({ "lang": lang })), &signed(3)).expect("renders");
        let html = part(&read_back(&message), 1);
        assert!(html.contains(greeting), "{html}");
        assert_eq!(attributes(&html, "href"), [url(3, LinkPurpose::Mirror)]);
        assert_eq!(attributes(&html, "src"), [url(3, LinkPurpose::Open)]);
    }
}

#[test]
fn tokens_are_read_back_wherever_lines_are_broken() {
    let lines: String = (0..160)
        .map(|n| format!("{}<a href='https://shop.example/{n}'>ü</a>\n", "x".repeat(n)))
        .collect();
    let template = tracked(Some(&format!("<p>{{{{ a }}}}\n{lines}</p>")), Some("x"));
    let message = template.render(&recipient(json!({"a": "A"})), &signed(5)).expect("renders");
    check_bytes(&message);
    let text = String::from_utf8(message.clone()).expect("ASCII");
    let is_whole =
        |n| text.contains(url(5, LinkPurpose::Click(n)).rsplit('/').next().expect("a token"));
    assert!((0..160).any(is_whole) && !(0..160).all(is_whole), "some tokens are broken over lines");
    let html = part(&read_back(&message), 1);
    let expected: Vec<String> = [LinkPurpose::Mirror]
        .into_iter()
        .chain((0..160).map(LinkPurpose::Click))
        .map(|purpose| url(5, purpose))
        .collect();
    assert_eq!(attributes(&html, "href"), expected);
    // The same holds in base64.
    let foreign = format!(
        "<p>{{{{ a }}}}\n{}<a href='https://shop.example'>x</a>\n</p>",
        "Здравствуйте\n".repeat(60)
    );
    let message = tracked(Some(&foreign), Some("x"))
        .render(&recipient(json!({"a": "A"})), &signed(5))
        .expect("renders");
    let read = read_back(&message);
    assert_eq!(read["parts"][1][1], "base64");
    assert_eq!(attributes(&part(&read, 1), "href"), expected[..2]);
}

#[test]
fn messages_are_unchanged_without_a_public_listener() {
    let html = "<BODY><a data-track=false  href='https://shop.example'>A</a> {{ a }}</BODY>";
    let template = compile("Hi", Some(html), Some("{{ unsubscribe_url }}"));
    let message = template
        .render(&recipient(json!({"a": "A", "unsubscribe_url": "mine"})), &signed(1))
        .expect("renders");
    let message = String::from_utf8(message).expect("ASCII");
    let head = "MIME-Version: 1.0\r\nFrom: =?utf-8?B?QsO8Y2hlciAmIFPDtmhuZQ==?= <news@shop.example>\r\nReply-To: help@xn--mller-kva.example\r\n\
        Date: Mon, 23 Nov 2026 14:50:01 +0000\r\nMessage-ID: <d1.c2.r3@shop.example>\r\nTo: Jane.Doe@example.org\r\nSubject: Hi\r\n";
    let body = message.strip_prefix(head).expect("there is no further header");
    assert!(
        body.contains(
            "\r\n<BODY><a data-track=3Dfalse  href=3D'https://shop.example'>A</a> A</BODY>\r\n"
        ),
        "{body}"
    );
    assert!(body.contains("\r\nmine\r\n"), "{body}");
    let missing =
        template.render(&recipient(json!({"a": "A"})), &stamp()).expect_err("a missing field");
    assert_eq!(missing.field.as_deref(), Some("unsubscribe_url"));
    assert!(template.links().is_empty() && template.target(0, &recipient(json!({}))).is_none());
    let unsigned = tracked(None, Some("x"))
        .render(&recipient(json!({})), &stamp())
        .expect_err("nothing makes tokens");
    assert_eq!(unsigned.part, "message");
}

#[test]
fn a_tracked_link_leads_to_the_target_of_its_recipient() {
    let html = "<a href='https://shop.example/ü?a=1&amp;b=&quot;'>1</a><a href=\"https://shop.example/{{ id|urlencode }}?n={{ name }}\">2</a>\
                {% if link %}<a href='{{ link }}'>3</a>{% endif %}";
    let template = tracked(Some(html), Some("x"));
    let target = |link, fields: Value| template.target(link, &recipient(fields));
    assert_eq!(target(0, json!({})).as_deref(), Some("https://shop.example/%C3%BC?a=1&b=%22"));
    let jane = json!({"id": "a/b", "name": "Jane & \"x\" O'Hara/ü", "link": ""});
    assert_eq!(
        target(1, jane).as_deref(),
        Some("https://shop.example/a/b?n=Jane%20&%20%22x%22%20O%27Hara/%C3%BC")
    );
    assert_eq!(
        target(2, json!({"link": "https://b.example/?a=1&b=2"})).as_deref(),
        Some("https://b.example/?a=1&b=2")
    );
    for nowhere in [
        json!({"link": "javascript:alert(1)"}),
        json!({"link": "//evil.example"}),
        json!({"link": ""}),
        json!({}),
    ] {
        assert_eq!(target(2, nowhere), None);
    }
    assert_eq!(target(3, json!({})), None);
    // The dry run finds a bad link that the final message no longer shows.
    let tried = |fields: Value| {
        template
            .try_message(&recipient(fields), &signed(0))
            .map_err(|error| (error.part, error.field))
    };
    assert_eq!(tried(json!({"id": 1, "name": "n", "link": ""})), Ok(()));
    assert_eq!(tried(json!({"id": 1, "link": ""})), Err(("html", Some("name".into()))));
    assert_eq!(
        tried(json!({"id": 1, "name": "n", "link": "mailto:a@b.example"})),
        Err(("html", None))
    );
    // The check covers the links of the original template.
    let faults = tracked(
        Some("<a href='/x'>1</a><a href='https://a.example'>2</a>{{ unsubscribe_url }}"),
        None,
    );
    assert_eq!(faults.link_faults(&recipient(json!({})), &signed(0)).len(), 1);
}

#[test]
fn the_mirror_page_of_a_text_is_the_text() {
    let template = tracked(None, Some("{{ a }} & <b>\n{{ mirror_url }}"));
    let page = template.mirror(&recipient(json!({"a": "<script>"})), &signed(2)).expect("renders");
    assert_eq!(
        page,
        format!("<pre>&lt;script&gt; &amp; &lt;b&gt;\n{}</pre>", url(2, LinkPurpose::Mirror))
    );
}

#[test]
fn links_are_whole_though_the_address_of_the_listener_is_long_or_odd() {
    let url = format!("https://t.shop.example/{}=1'{{{{ x }}}}", "path/".repeat(30));
    let content = content(
        "Hi",
        Some("<p><a href='https://shop.example'>{{ unsubscribe_url }}</a></p>"),
        None,
    );
    let template =
        Template::compile(&sender(), &content, &tracking(&url), LIMIT_BYTES).expect("compiles");
    let message = template.render(&recipient(json!({})), &signed(1)).expect("renders");
    let read = read_back(&message);
    assert_eq!(read["defects"], json!([]));
    let html = part(&read, 1);
    let clean =
        url.replace('{', "%7B").replace('}', "%7D").replace(' ', "%20").replace('\'', "%27");
    for (found, path) in attributes(&html, "href").iter().zip(["/m/", "/c/"]) {
        assert!(found.starts_with(&format!("{clean}{path}")), "{found}");
    }
    let lines = String::from_utf8(message).expect("ASCII");
    assert_eq!(
        lines.lines().filter(|line| line.len() > 76).count(),
        1,
        "only the link in the header, which cannot be broken over lines"
    );
}
