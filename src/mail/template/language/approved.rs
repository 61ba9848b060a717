//! Decides which approved templates outside the language may still be rendered.
//!
//! Earlier versions accepted every template of the engine, and made each message once before a
//! person confirmed the delivery. So such a template is known to end. One danger remains: values
//! that nest deeply may overflow the stack of another thread.

use minijinja::machinery::{Token, tokenize};

/// The most places of a template that may put values into one another.
const MOST_NESTING: usize = 100;
/// The same, if a part of the template can be evaluated within itself. The engine allows that some
/// hundred times.
const MOST_REPEATED_NESTING: usize = 1;
/// Words of parts that are evaluated within themselves or elsewhere.
const REPEATING: [&str; 8] =
    ["macro", "call", "block", "extends", "include", "import", "recursive", "self"];
/// Words of functions and filters that give lists or maps of values.
const NESTING: [&str; 13] = [
    "dict", "zip", "chain", "batch", "slice", "groupby", "map", "list", "reverse", "items",
    "dictsort", "split", "lines",
];

/// Words before a list. After other words, a bracket begins an index.
const OPERATORS: [&str; 10] =
    ["and", "elif", "else", "if", "in", "is", "not", "or", "recursive", "with"];

/// Whether an approved template outside the language holds no value that nests deeply.
pub fn is_harmless(source: &str) -> bool {
    let (mut nesting, mut repeats) = (0, false);
    // an index such as `a[1]` begins no list
    let mut before_is_value = false;
    for token in tokenize(source, false, Default::default()) {
        let Ok((token, _)) = token else { return false };
        match token {
            Token::Ident("namespace") => return false,
            Token::Ident(word) => {
                repeats |= REPEATING.contains(&word);
                nesting += usize::from(NESTING.contains(&word));
            }
            Token::BracketOpen if !before_is_value => nesting += 1,
            Token::BraceOpen | Token::Colon | Token::Plus | Token::Mul => nesting += 1,
            _ => {}
        }
        before_is_value = match token {
            Token::Ident(word) => !OPERATORS.contains(&word),
            Token::BracketClose | Token::ParenClose => true,
            _ => false,
        };
    }
    nesting <= if repeats { MOST_REPEATED_NESTING } else { MOST_NESTING }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_templates_that_nest_values_deeply_are_harmful() {
        for harmless in [
            "{% macro button(url) %}<a href='{{ url }}'>{% endmacro %}{{ button('x') }}",
            "{% if a == b %}{{ a[0] }}{% endif %}{{ products[:3] }}",
            "{% set l = [a, b] %}{{ l|join }}{% if x in [a, b] %}{% endif %}",
            "{% for a in l recursive %}{{ loop(a.children) }}{% endfor %}",
        ] {
            assert!(is_harmless(harmless), "{harmless}");
        }
        let many = "{% set l = [l] %}".repeat(101);
        for harmful in [
            "{% set n = namespace(l=[]) %}",
            many.as_str(),
            "{% macro m(l) %}{{ m([[l]]) }}{% endmacro %}",
        ] {
            assert!(!is_harmless(harmful), "{harmful}");
        }
    }
}
