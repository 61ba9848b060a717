//! The tests of the language, as in `{% if name is defined %}`, and what they cost.

use minijinja::{Value, tests};

use super::filter_rules::Cost;

/// A test of the language.
#[derive(Debug, Clone, Copy)]
pub struct TestRule {
    pub name: &'static str,
    /// How many arguments it has. They may be any values.
    pub arguments: usize,
    pub cost: Cost,
}

const fn rule(name: &'static str, arguments: usize, cost: Cost) -> TestRule {
    TestRule { name, arguments, cost }
}

/// All tests of the language, in alphabetical order.
pub const TESTS: [TestRule; 29] = {
    use Cost::{Size, Small};
    [
        rule("boolean", 0, Small),
        rule("defined", 0, Small),
        rule("divisibleby", 1, Small),
        rule("endingwith", 1, Size),
        rule("eq", 1, Size),
        rule("equalto", 1, Size),
        rule("even", 0, Small),
        rule("false", 0, Small),
        rule("float", 0, Small),
        rule("ge", 1, Size),
        rule("greaterthan", 1, Size),
        rule("gt", 1, Size),
        rule("in", 1, Size),
        rule("integer", 0, Small),
        rule("iterable", 0, Size),
        rule("le", 1, Size),
        rule("lessthan", 1, Size),
        rule("lower", 0, Size),
        rule("lt", 1, Size),
        rule("mapping", 0, Small),
        rule("ne", 1, Size),
        rule("none", 0, Small),
        rule("number", 0, Small),
        rule("odd", 0, Small),
        rule("sequence", 0, Small),
        rule("startingwith", 1, Size),
        rule("string", 0, Small),
        rule("true", 0, Small),
        rule("undefined", 0, Small),
    ]
};

/// The names of all tests, in alphabetical order.
pub fn test_names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|rule| rule.name)
}

impl TestRule {
    /// The test with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TESTS.iter().find(|rule| rule.name == name)
    }

    /// The engine's function.
    pub fn function(&self) -> Value {
        match self.name {
            "boolean" => Value::from_function(tests::is_boolean),
            "defined" => Value::from_function(tests::is_defined),
            "divisibleby" => Value::from_function(tests::is_divisibleby),
            "endingwith" => Value::from_function(tests::is_endingwith),
            "eq" | "equalto" => Value::from_function(tests::is_eq),
            "even" => Value::from_function(tests::is_even),
            "false" => Value::from_function(tests::is_false),
            "float" => Value::from_function(tests::is_float),
            "ge" => Value::from_function(tests::is_ge),
            "greaterthan" | "gt" => Value::from_function(tests::is_gt),
            "in" => Value::from_function(tests::is_in),
            "integer" => Value::from_function(tests::is_integer),
            "iterable" => Value::from_function(tests::is_iterable),
            "le" => Value::from_function(tests::is_le),
            "lessthan" | "lt" => Value::from_function(tests::is_lt),
            "lower" => Value::from_function(tests::is_lower),
            "mapping" => Value::from_function(tests::is_mapping),
            "ne" => Value::from_function(tests::is_ne),
            "none" => Value::from_function(tests::is_none),
            "number" => Value::from_function(tests::is_number),
            "odd" => Value::from_function(tests::is_odd),
            "sequence" => Value::from_function(tests::is_sequence),
            "startingwith" => Value::from_function(tests::is_startingwith),
            "string" => Value::from_function(tests::is_string),
            "true" => Value::from_function(tests::is_true),
            _ => Value::from_function(tests::is_undefined),
        }
    }
}
