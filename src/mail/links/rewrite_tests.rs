//! Tests of the rewriting: links, labels, the open pixel and the link to the mirror page.

use minijinja::Environment;

use super::{
    placeholder,
    rewrite::{RewrittenHtml, rewrite},
    token::LinkPurpose,
};
use crate::domain::delivery::Tracking;

fn tracking(mirror_link: &str) -> Tracking {
    Tracking {
        url: "https://t.example".into(),
        opens: true,
        clicks: true,
        mirror_link: mirror_link.into(),
    }
}

fn rewritten(source: &str) -> RewrittenHtml {
    let environment = Environment::new();
    let fields_of = |piece: &str| {
        let template = environment.template_from_str(piece).ok()?;
        Some(template.undeclared_variables(false).into_iter().collect())
    };
    rewrite(source, &Tracking { opens: false, ..tracking("") }, "https://t.example", fields_of)
        .expect("is rewritten")
}

/// Compares the rewritten source, with `<n>` for the address of link n, and the addresses.
#[track_caller]
fn check(source: &str, expected: &str, urls: &[&str]) {
    let found = rewritten(source);
    let mut short = found.source;
    for number in 0..found.links.len() {
        short = short.replace(
            &format!("https://t.example/c/{{{{ __token[{number}] }}}}"),
            &format!("<{number}>"),
        );
    }
    assert_eq!(short, expected);
    assert_eq!(found.links.iter().map(|link| link.url.as_str()).collect::<Vec<_>>(), urls);
}

#[test]
fn links_to_the_web_are_tracked_in_every_place() {
    check(
        "<p>{{ a }}<a class='x' href='https://a.example/?x=1&amp;y=2' title=\"{{ t }}\">A</a>\
         <A HREF=http://b.example>B</A>\n<map><area href=\"HTTPS://c.example/\"></map>",
        "<p>{{ a }}<a class='x' href=\"<0>\" title=\"{{ t }}\">A</a>\
         <A HREF=\"<1>\">B</A>\n<map><area href=\"<2>\"></map>",
        &["https://a.example/?x=1&y=2", "http://b.example", "HTTPS://c.example/"],
    );
    // The same address twice makes two links.
    check(
        "<a href='https://a.example'>1</a><a href='https://a.example'>2</a>",
        "<a href=\"<0>\">1</a><a href=\"<1>\">2</a>",
        &["https://a.example"; 2],
    );
    // A link in a loop counts once.
    check(
        "{% for p in l %}<a href='https://a.example'>{{ p > 1 }}</a>{% endfor %}",
        "{% for p in l %}<a href=\"<0>\">{{ p > 1 }}</a>{% endfor %}",
        &["https://a.example"],
    );
    check(
        "<a {% if x > '>' %}class=\"b\"{% endif %} href='https://a.example'>1",
        "<a {% if x > '>' %}class=\"b\" {% endif %} href=\"<0>\">1",
        &["https://a.example"],
    );
}

#[test]
fn other_links_stay_as_they_are() {
    for same in [
        "<a href='mailto:a@b.example'>x</a><a href='tel:+1'>x</a><a href='#top'>x</a>\
         <a name=y>x</a><a href=''>x</a>",
        "<!-- <a href='https://a.example'>x</a> --><style>a[href='https://a.example']{}</style>\
         <textarea><a href='https://a.example'></textarea>",
        "<a href='{{ unsubscribe_url }}'>x</a><a href=\"{{ mirror_url }}\">x</a>\
         <a href='mailto:{{ email }}'>x</a>",
        "{% raw %}<a href='https://a.example'>{{ x }}</a>{% endraw %}\
         {{ \"<a href='https://a.example'>\" }}{# <a href='https://a.example'> #}",
        "<link href='https://a.example'><img src='https://a.example'>< a href='https://a.example'>\
         \u{E000}0\u{E001}\u{E001}{ {x",
    ] {
        check(same, same, &[]);
    }
    check(
        "<a data-track=\"false\" href='https://a.example'>x</a>",
        "<a href='https://a.example'>x</a>",
        &[],
    );
}

#[test]
fn links_with_merge_fields_are_tracked_and_links_with_variables_are_listed() {
    let merged = "https://a.example/{{ id|urlencode }}?{% if x %}y{% endif %}";
    let found = rewritten(&format!("<a href=\"{merged}\">x</a><a href='{{{{ link }}}}'>y</a>"));
    assert_eq!(
        found.links.iter().map(|link| (link.url.as_str(), link.merged)).collect::<Vec<_>>(),
        [(merged, true), ("{{ link }}", true)]
    );
    assert!(found.untracked.is_empty());
    for unknown in [
        "{% for p in l %}<a href='https://a.example/{{ p.id }}'>x</a>{% endfor %}",
        "{%- for k, p in l %}<a href='https://a.example/{{ p }}'>x</a>{% endfor %}",
        "{% for q in l %}<a href='https://a.example/{{ loop.index }}'>x</a>{% endfor %}",
        "{% set p = 1 %}<a href='https://a.example/{{ p }}'>x</a>",
        "{% with p = a %}<a href='https://a.example/{{ p }}'>x</a>{% endwith %}",
        "{% macro m(p) %}<a href='https://a.example/{{ p }}'>x</a>{% endmacro %}",
        "<a href=\"https://a.example/{% if x %}\">1</a>{% else %}\">2</a>{% endif %}",
    ] {
        let found = rewritten(unknown);
        assert_eq!(
            (found.source.as_str(), found.links.len(), found.untracked.len()),
            (unknown, 0, 1),
            "{unknown}"
        );
    }
}

#[test]
fn a_label_is_the_visible_text_of_a_link() {
    let long = "ü".repeat(200);
    for (link, label) in [
        (
            "<a href='https://a.example'> Buy <b>it\n {{ when }}</b>&nbsp;&amp; smile</a> no more",
            "Buy it {{ when }} & smile",
        ),
        ("<a href='https://a.example' title='The title'><img alt='A picture'></a>", "The title"),
        ("<a href='https://a.example'><img src=x alt='A picture'><img alt=2></a>", "A picture 2"),
        ("<map><area href='https://a.example' alt='A place'></map>", "A place"),
        ("<a href='https://a.example/?a&amp;b'> </a>", "https://a.example/?a&b"),
        (&format!("<a href='https://a.example'>{long}</a>"), &long[..200]),
    ] {
        assert_eq!(rewritten(link).links[0].label, label, "{link}");
    }
}

#[test]
fn pixel_and_mirror_link_stand_in_the_body() {
    let both = |source| {
        rewrite(source, &tracking("<b> {{ \"x\""), "https://t.example", |_| None)
            .expect("is rewritten")
            .source
    };
    let mirror = format!(
        "<p><a href=\"https://t.example/m/{}\">&lt;b&gt; &#123;&#123; &quot;x&quot;</a></p>",
        placeholder::tag(LinkPurpose::Mirror)
    );
    let pixel = format!(
        "<img src=\"https://t.example/o/{}\" width=\"1\" height=\"1\" alt=\"\" \
         style=\"display:block\">",
        placeholder::tag(LinkPurpose::Open)
    );
    assert_eq!(both("Hi\n"), format!("{mirror}Hi\n{pixel}"));
    assert_eq!(
        both("<html><BODY class=x><!-- </body> --><p>Hi</p></Body></html>\n"),
        format!("<html><BODY class=x>{mirror}<!-- </body> --><p>Hi</p>{pixel}</Body></html>\n")
    );
    assert_eq!(both("<body>Hi"), format!("<body>{mirror}Hi{pixel}"));
    // A message has only one of the branches.
    assert_eq!(
        both(
            "{% if a %}<html><body>1</body></html>\
             {% else %}<html><body>2</body></html>{% endif %}"
        ),
        format!(
            "{{% if a %}}<html><body>{mirror}1{pixel}</body></html>\
             {{% else %}}<html><body>{mirror}2{pixel}</body></html>{{% endif %}}"
        )
    );
    assert_eq!(
        both("{% if a %}<body class=a>{% else %}<body>{% endif %}Hi</body>"),
        format!(
            "{{% if a %}}<body class=a>{mirror}{{% else %}}<body>{mirror}{{% endif %}}\
             Hi{pixel}</body>"
        )
    );
    assert!(rewrite("{{ __token[1] }}", &tracking(""), "https://t.example", |_| None).is_err());
}

#[test]
fn too_many_links_are_refused() {
    let most = "<a href='https://a.example'></a>".repeat(placeholder::MAX_LINKS);
    assert_eq!(rewritten(&most).links.len(), placeholder::MAX_LINKS);
    let more = rewrite(
        &format!("{most}<a href='https://a.example'>"),
        &tracking(""),
        "https://t.example",
        |_| None,
    );
    assert!(more.is_err_and(|error| error.contains("more than 65000 links")));
}
