//! Checks that the source of a template stays within the language.

use minijinja::machinery::{Span, parse};

use super::{scope::Scope, violation::Violation};
use crate::mail::template::tags;

/// The most statements and expressions of one part. They bound what its compilation takes.
const MOST_NODES: u32 = 50_000;
/// The most expressions in one another: `a.b.c` has 3. This bounds the stack that a check takes.
const DEEPEST: u32 = 100;

/// Checks one part of a template: subject, HTML or text.
///
/// # Errors
///
/// The first place that is outside the language or cannot be parsed.
pub fn check(source: &str) -> Result<(), Violation> {
    if let Some((line, reason)) = tags::too_deep(source) {
        return Err(Violation { line: Some(line), reason });
    }
    let parsed = parse(source, "template", Default::default());
    let tree = parsed.map_err(|error| Violation::of_engine(&error))?;
    Checker { scope: Scope::of(&tree), ..Checker::default() }.statement(&tree)
}

/// The most loops and `with` blocks in one another. Each lookup of a name goes through them.
const MOST_FRAMES: u32 = 20;

/// The state of one check.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) scope: Scope,
    /// The number of loops and `with` blocks around the present place.
    frames: u32,
    nodes: u32,
    /// The number of expressions around the present place.
    depth: u32,
}

impl Checker {
    /// Counts a statement or an expression.
    pub(super) fn count(&mut self, span: Span) -> Result<(), Violation> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            let reason = format!("has more than {MOST_NODES} tags and expressions");
            return Err(Violation::at(span, reason));
        }
        Ok(())
    }

    /// Checks what stands within a loop or a `with` block.
    pub(super) fn framed(
        &mut self,
        span: Span,
        check: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        if self.frames >= MOST_FRAMES {
            let reason = format!("more than {MOST_FRAMES} loops and with blocks in one another");
            return Err(Violation::at(span, reason));
        }
        self.frames += 1;
        check(self)?;
        self.frames -= 1;
        Ok(())
    }

    /// Checks what stands within an expression.
    pub(super) fn within(
        &mut self,
        span: Span,
        check: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        self.count(span)?;
        if self.depth >= DEEPEST {
            let reason = format!("an expression of more than {DEEPEST} parts in one another");
            return Err(Violation::at(span, reason));
        }
        self.depth += 1;
        check(self)?;
        self.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_templates_of_mails_use_is_in_the_language() {
        for source in [
            "Dear {{ name|default('friend') }},{# a remark #}{% raw %}{{ x }}{% endraw %}",
            "{% if country == 'DE' and not vip %}a{% elif points >= 10 %}b{% else %}c{% endif %}",
            "{% if 'vip' in tags or country in ['AT', 'CH'] or 3 not in l %}x{% endif %}",
            "{% if a is eq(b) and a is in(tags) and a is not none %}x{% endif %}",
            "{% for p in products if p.price > 10 %}{{ loop.index + 1 }} {{ p['name']|upper }}\
             {{ loop.cycle('odd', 'even') }}{% else %}none{% endfor %}",
            "{% for row in products|batch(2) %}{% for p in row %}{{ p }}{% endfor %}{% endfor %}",
            "{% for k, v in address|dictsort %}{{ k }}{{ v }}{% endfor %}",
            "{% set total = price|float * count|int %}{{ (total * 1.19)|round(2) }}",
            "{% set full = (first ~ ' ' ~ last)|trim %}{{ full }}{{ first ~ last }}",
            "{{ products|map(attribute='name')|join(', ') }}{{ products|sum(attribute='n') }}",
            "{{ products|selectattr('n', 'gt', 3)|list|length }}{{ l|map('upper')|first }}",
            "{{ {'de': 'Hallo', 'en': 'Hello'}[language] }}{{ products[0].name }}",
            "{{ 'yes' if vip else 'no' }}{{ -1 < points < 5 }}{{ a - b }}{{ a / b }}",
            "{% with city = address.city %}{{ city|e }}{% endwith %}",
            "{% for i in range(stars) %}*{% endfor %}{% for i in range(0, 10, 2) %}{% endfor %}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_is_outside_the_language_is_refused_with_its_line_and_what_to_write_instead() {
        for (source, instead) in [
            ("{% macro m() %}{% endmacro %}", "write its content in place"),
            ("{{ [a] }}", "constants only"),
            ("{{ a * b }}", "a|int * b|int"),
            ("{{ a + b }}", "a ~ b"),
            ("{% if a == b %}{% endif %}", "a is eq(b)"),
            ("{% if a in b %}{% endif %}", "a is in(b)"),
            ("{{ a[1:] }}", "loop.index <= 3"),
            ("{{ a[b] }}", "a|attr(b)"),
            ("{% set s = a ~ b %}", "(a ~ b)|string"),
            ("{{ a|tojson }}", "not in the template language"),
            ("{{ a.upper() }}", "a|upper"),
        ] {
            let found = check(&format!("\n\n{source}")).expect_err(source);
            assert_eq!(found.line, Some(3), "{source}");
            assert!(found.reason.contains(instead), "{source}: {}", found.reason);
        }
    }
}
