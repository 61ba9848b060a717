//! The text alternative: a text template made once from the HTML template, with the same tags.

use html2text::render::TrivialDecorator;

use super::tags::{after_element, attribute, html_tag, link, template_tag};

/// The width in columns, so large that no line is wrapped.
///
/// Quoted-printable breaks long lines, and the reader's program joins them again.
const WIDTH: usize = 1_000_000;
/// Begins the number of a protected tag. This character is dropped from the source itself.
const OPEN: char = '\u{E000}';
/// Ends the number of a protected tag.
const CLOSE: char = '\u{E001}';

/// Elements that become only a new line. The start of a `li` also becomes a bullet.
///
/// The converter would draw borders around tables, and lose the tags between the items of a list.
const BLOCKS: [&str; 20] = [
    "div", "table", "tbody", "thead", "tfoot", "tr", "caption", "ul", "ol", "li", "dl", "dt", "dd",
    "center", "section", "article", "form", "header", "footer", "address",
];
/// Elements with a blank line around them.
const PARAGRAPHS: [&str; 9] = ["p", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6"];
/// Elements whose content is not text.
const SILENT: [&str; 5] = ["style", "script", "title", "noscript", "svg"];

/// The text template for an HTML template. The address of a link follows its text as `<url>`.
///
/// # Errors
///
/// The HTML cannot be read at all.
pub fn from_html(source: &str) -> Result<String, String> {
    let mut protected = Protected::default();
    protected.read(source);
    let text = html2text::config::with_decorator(TrivialDecorator::new())
        .allow_width_overflow()
        .string_from_read(protected.html.as_bytes(), WIDTH)
        .map_err(|e| e.to_string())?;
    Ok(protected.put_back(&text))
}

struct Tag {
    source: String,
    /// `{% .. %}`: a line that holds only such tags gets no line end.
    is_block: bool,
}

/// HTML without attributes, tables and lists. A number stands for every template tag.
#[derive(Default)]
struct Protected {
    html: String,
    tags: Vec<Tag>,
    /// The name of the open block.
    open: Option<&'static str>,
    /// The targets of the open links, the innermost last.
    links: Vec<Option<String>>,
}

impl Protected {
    fn read(&mut self, source: &str) {
        let mut rest = source;
        while let Some(next) = rest.chars().next() {
            if let Some((tag, after)) = template_tag(rest) {
                self.protect(tag);
                rest = after;
            } else if let Some(comment) = rest.strip_prefix("<!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
            } else if next == '<'
                && rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
            {
                let (tag, after) = html_tag(rest);
                rest = self.element(tag, after);
            } else {
                if next != OPEN && next != CLOSE {
                    self.html.push(next);
                }
                rest = &rest[next.len_utf8()..];
            }
        }
    }

    fn protect(&mut self, tag: &str) {
        if !tag.starts_with("{#") {
            self.keep(tag.to_owned(), tag.starts_with("{%"));
        }
    }

    fn keep(&mut self, source: String, is_block: bool) {
        self.html.push_str(&format!("{OPEN}{}{CLOSE}", self.tags.len()));
        self.tags.push(Tag { source, is_block });
    }

    /// Reads one HTML tag, given without its brackets. Returns the rest of the source.
    fn element<'a>(&mut self, tag: &'a str, after: &'a str) -> &'a str {
        let end = tag.starts_with('/');
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        match name.as_str() {
            "a" if end => {
                if let Some(Some(url)) = self.links.pop() {
                    self.keep(format!(" <{url}>"), false);
                }
            }
            "a" => self.links.push(link(tag)),
            "img" => self.read(&attribute(tag, "alt").unwrap_or_default()),
            "td" | "th" if end => self.html.push(' '),
            "br" => self.html.push_str("<br>"),
            "hr" => {
                self.begin("div");
                self.html.push_str("---");
                self.begin("div");
            }
            "li" if !end => {
                self.begin("div");
                self.html.push_str("* ");
            }
            name if !end && SILENT.contains(&name) => return after_element(name, after),
            "pre" if !end => self.begin("pre"),
            name if !end && PARAGRAPHS.contains(&name) => self.begin("p"),
            name if BLOCKS.contains(&name) || PARAGRAPHS.contains(&name) => self.begin("div"),
            _ => {}
        }
        after
    }

    /// Begins a block, and ends the one before. Nested blocks could overflow the converter's stack.
    fn begin(&mut self, block: &'static str) {
        if let Some(open) = self.open.replace(block) {
            self.html.push_str(&format!("</{open}>"));
        }
        self.html.push_str(&format!("<{block}>"));
    }

    /// The converted text with the template tags, at most one blank line in a row.
    fn put_back(&self, text: &str) -> String {
        let mut lines = String::with_capacity(text.len() * 2);
        let mut blank = true;
        for line in text.lines() {
            let line = line.trim_end();
            if line.is_empty() {
                if !blank {
                    lines.push('\n');
                }
                blank = true;
                continue;
            }
            if self.restore(line, &mut lines) {
                lines.push('\n');
                blank = false;
            }
        }
        lines.truncate(lines.trim_end().len());
        lines.push('\n');
        lines
    }

    /// Appends a line with its tags. Returns whether it holds more than block tags.
    fn restore(&self, line: &str, lines: &mut String) -> bool {
        let mut has_text = false;
        for (index, piece) in line.split(OPEN).enumerate() {
            let (tag, after) = match piece.split_once(CLOSE) {
                Some((number, after)) if index > 0 => {
                    (number.parse().ok().and_then(|n: usize| self.tags.get(n)), after)
                }
                _ => (None, piece),
            };
            if let Some(tag) = tag {
                has_text |= !tag.is_block;
                lines.push_str(&tag.source);
            }
            has_text |= !after.trim().is_empty();
            lines.push_str(after);
        }
        has_text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(html: &str, text: &str) {
        assert_eq!(from_html(html).as_deref(), Ok(text), "{html}");
    }

    #[test]
    fn template_tags_survive_in_tables_lists_and_links() {
        check(
            "<table>{% for i in items %}<tr><td>{{ i.name }}</td><td>{{ i.n }}</td></tr>\
             {% endfor %}</table>",
            "{% for i in items %}{{ i.name }} {{ i.n }}\n{% endfor %}\n",
        );
        check(
            "<ul>\n{% for i in items %}\n \
             <li><a href=\"https://x.example/?a=1&amp;b={{ i.id }}\">{{ i.name|upper }}</a></li>\n\
             {% endfor %}\n</ul><p>End</p>",
            "{% for i in items %}* {{ i.name|upper }} <https://x.example/?a=1&b={{ i.id }}>\n\
             {% endfor %}\nEnd\n",
        );
        check(
            "<p>Dear {% if name %}{{ name }}{% else %}friend{% endif %},</p>\
             <p>Bye &amp; <b>thanks</b></p>",
            "Dear {% if name %}{{ name }}{% else %}friend{% endif %},\n\nBye & thanks\n",
        );
    }

    #[test]
    fn content_that_is_not_text_leaves_nothing() {
        check(
            "<html><head><title>T {{ t }}</title><style>a{b:c}{% if x %}{% endif %}</style></head>\
             <body><!-- {{ no }} --><img src='{{ s }}' alt='Logo {{ n }}'>\
             <p class=\"{% if a > b %}x{% endif %}\">Hi{# c #}</p></body></html>",
            "Logo {{ n }}\n\nHi\n",
        );
    }

    #[test]
    fn strings_and_raw_blocks_inside_tags_do_not_end_them() {
        check(
            "<p>{{ \"}}<b>\" }} {% raw %}{{ x }}<b>{% endraw %} a < b</p>",
            "{{ \"}}<b>\" }} {% raw %}{{ x }}<b>{% endraw %} a < b\n",
        );
        check("<p>{{ open", "{{ open\n");
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        for tag in [
            "<div>",
            "<table><tr><td>",
            "<blockquote>",
            "<pre>",
            "<a href='x'>",
            "<ul><li>",
            "<b><p>",
        ] {
            let html = format!("{}end", tag.repeat(20_000));
            assert!(from_html(&html).is_ok_and(|text| text.contains("end")), "{tag}");
        }
    }

    #[test]
    fn lines_are_not_wrapped_and_blank_lines_not_doubled() {
        let long = "word ".repeat(400);
        check(
            &format!("<div><div><p>{long}</p></div></div><hr><p></p><p>a<br>b</p>"),
            &format!("{}\n\n---\n\na\nb\n", long.trim()),
        );
    }
}
