//! The filters of the language: their arguments, what they cost, and what they give.

use minijinja::{Value, filters};

/// A filter of the language.
#[derive(Debug, Clone, Copy)]
pub struct FilterRule {
    pub name: &'static str,
    pub arguments: FilterArguments,
    pub cost: Cost,
    pub result: FilterResult,
}

/// The arguments that a filter may have. Keyword arguments are always constants.
#[derive(Debug, Clone, Copy)]
pub struct FilterArguments {
    /// The most positional arguments.
    pub most: usize,
    /// The positional arguments must be constants.
    pub constant: bool,
    pub keywords: &'static [&'static str],
}

/// What a filter or a test charges before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// The engine's own charge, and a little for the items of a map or an iterable.
    Small,
    /// A fixed amount: the digits of a number are computed one by one.
    Digits,
    /// The whole size of the value and the arguments.
    Size,
    /// The size, and the size of the text times that of the argument: each character is compared
    /// with all.
    Product,
    /// The size, and one comparison for each item.
    Comparisons,
    /// The size, and the comparisons of a sort.
    Sort,
}

/// What a filter gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterResult {
    /// A number, or an error. `int` and `float` may give their default instead.
    Number,
    /// A text or another plain value, made from the value. Such a filter may stand in `map`.
    Plain,
    /// The value itself, its argument, or an item of it.
    Passed,
    /// A list of items, of values made from items, of parts of a text, or of pairs.
    ///
    /// `reverse` of a text gives a text.
    List,
    /// A list of lists. Only a loop may go through it, so that lists do not nest.
    ListOfLists,
}

const NONE: FilterArguments = FilterArguments { most: 0, constant: true, keywords: &[] };

const fn constants(most: usize, keywords: &'static [&'static str]) -> FilterArguments {
    FilterArguments { most, constant: true, keywords }
}

const fn values(most: usize) -> FilterArguments {
    FilterArguments { most, constant: false, keywords: &[] }
}

const fn rule(
    name: &'static str,
    arguments: FilterArguments,
    cost: Cost,
    result: FilterResult,
) -> FilterRule {
    FilterRule { name, arguments, cost, result }
}

/// All filters of the language, in alphabetical order.
pub const FILTERS: [FilterRule; 41] = {
    use Cost::{Comparisons, Digits, Product, Size, Small, Sort};
    use FilterResult::{List, ListOfLists, Number, Passed, Plain};
    [
        rule("abs", NONE, Small, Number),
        rule("attr", values(1), Small, Passed),
        rule("batch", constants(2, &[]), Size, ListOfLists),
        rule("bool", NONE, Small, Plain),
        rule("capitalize", NONE, Size, Plain),
        rule("count", NONE, Small, Number),
        rule("d", values(2), Small, Passed),
        rule("default", values(2), Small, Passed),
        rule("dictsort", constants(0, &["by", "case_sensitive", "reverse"]), Sort, List),
        rule("e", NONE, Size, Plain),
        rule("escape", NONE, Size, Plain),
        rule("first", NONE, Small, Passed),
        rule("float", constants(1, &["default"]), Size, Number),
        rule("int", constants(1, &["default"]), Size, Number),
        rule("items", NONE, Small, List),
        rule("join", constants(1, &["attribute", "d"]), Size, Plain),
        rule("last", NONE, Small, Passed),
        rule("length", NONE, Small, Number),
        rule("lines", NONE, Size, List),
        rule("list", NONE, Size, List),
        rule("lower", NONE, Size, Plain),
        rule("map", constants(3, &["attribute", "default"]), Size, List),
        rule("max", constants(0, &["attribute", "case_sensitive"]), Comparisons, Passed),
        rule("min", constants(0, &["attribute", "case_sensitive"]), Comparisons, Passed),
        rule("reject", constants(2, &[]), Size, List),
        rule("rejectattr", constants(3, &[]), Size, List),
        rule("replace", values(2), Size, Plain),
        rule("reverse", NONE, Size, List),
        rule("round", constants(2, &["method", "precision"]), Digits, Number),
        rule("safe", NONE, Size, Plain),
        rule("select", constants(2, &[]), Size, List),
        rule("selectattr", constants(3, &[]), Size, List),
        rule("sort", constants(0, &["attribute", "case_sensitive", "reverse"]), Sort, List),
        rule("split", constants(2, &[]), Size, List),
        rule("string", NONE, Size, Plain),
        rule("sum", constants(1, &["attribute"]), Size, Number),
        rule("title", NONE, Size, Plain),
        rule("trim", values(1), Product, Plain),
        rule("unique", constants(0, &["attribute", "case_sensitive"]), Sort, List),
        rule("upper", NONE, Size, Plain),
        rule("urlencode", NONE, Size, Plain),
    ]
};

/// The names of all filters, in alphabetical order.
pub fn filter_names() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|rule| rule.name)
}

impl FilterRule {
    /// The filter with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        FILTERS.iter().find(|rule| rule.name == name)
    }

    /// Whether `map` may apply the filter: it makes no lists, but may pass one on.
    pub fn is_for_items(&self) -> bool {
        matches!(self.result, FilterResult::Number | FilterResult::Plain)
            || matches!(self.name, "d" | "default" | "first" | "last")
    }

    /// Whether the filter refuses a missing value. The engine's own functions accept it.
    pub fn needs_value(&self) -> bool {
        matches!(self.name, "count" | "first" | "items" | "last" | "length" | "reverse")
    }

    /// The engine's function.
    pub fn function(&self) -> Value {
        match self.name {
            "abs" => Value::from_function(filters::abs),
            "attr" => Value::from_function(filters::attr),
            "batch" => Value::from_function(filters::batch),
            "bool" => Value::from_function(filters::bool),
            "capitalize" => Value::from_function(filters::capitalize),
            "count" | "length" => Value::from_function(filters::length),
            "dictsort" => Value::from_function(filters::dictsort),
            "e" | "escape" => Value::from_function(filters::escape),
            "first" => Value::from_function(filters::first),
            "float" => Value::from_function(filters::float),
            "int" => Value::from_function(filters::int),
            "items" => Value::from_function(filters::items),
            "join" => Value::from_function(filters::join),
            "last" => Value::from_function(filters::last),
            "lines" => Value::from_function(filters::lines),
            "list" => Value::from_function(filters::list),
            "lower" => Value::from_function(filters::lower),
            "map" => Value::from_function(filters::map),
            "max" => Value::from_function(filters::max),
            "min" => Value::from_function(filters::min),
            "reject" => Value::from_function(filters::reject),
            "rejectattr" => Value::from_function(filters::rejectattr),
            "replace" => Value::from_function(filters::replace),
            "reverse" => Value::from_function(filters::reverse),
            "round" => Value::from_function(filters::round),
            "safe" => Value::from_function(filters::safe),
            "select" => Value::from_function(filters::select),
            "selectattr" => Value::from_function(filters::selectattr),
            "sort" => Value::from_function(filters::sort),
            "split" => Value::from_function(filters::split),
            "string" => Value::from_function(filters::string),
            "sum" => Value::from_function(filters::sum),
            "title" => Value::from_function(filters::title),
            "trim" => Value::from_function(filters::trim),
            "unique" => Value::from_function(filters::unique),
            "upper" => Value::from_function(filters::upper),
            "urlencode" => Value::from_function(filters::urlencode),
            _ => Value::from_function(filters::default),
        }
    }
}
