//! The engine with the filters and tests of the language, each of which is paid for beforehand.

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, functions,
    value::{Rest, ValueKind, ValueOrKwargs},
};

use super::{
    filter_rules::{Cost, FILTERS, FilterRule},
    meter::{Weight, charge, charge_comparisons, charge_product},
    test_rules::{TESTS, TestRule},
};
use crate::mail::template::{limits::ENGINE_FUEL, tracked_links::ORIGINAL};

/// The longest text that a filter makes. Longer texts would make small operations slow.
const MOST_TEXT_BYTES: usize = 128 * 1024;
/// The fuel of [`Cost::Digits`].
const DIGITS_FUEL: u64 = 50;

/// The engine of the language.
pub fn environment() -> Environment<'static> {
    let mut environment = limited(Environment::empty());
    for rule in FILTERS {
        let function = rule.function();
        environment.add_filter(rule.name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            filtered(state, &rule, &function, &args.into_values())
        });
    }
    for rule in TESTS {
        let function = rule.function();
        environment.add_test(rule.name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            tested(state, &rule, &function, &args.into_values())
        });
    }
    environment.add_function("range", functions::range);
    environment
}

/// The engine as earlier versions had it, for what they approved.
pub fn approved_environment() -> Environment<'static> {
    let mut environment = limited(Environment::new());
    // `debug` would print every field of the recipient.
    environment.remove_global("debug");
    environment
}

fn limited(mut environment: Environment<'static>) -> Environment<'static> {
    environment.set_auto_escape_callback(|part| match part {
        "html" | ORIGINAL => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(ENGINE_FUEL));
    // Errors keep their place, so that the field can be named. It costs nothing without an error.
    environment.set_debug(true);
    environment
}

fn filtered(
    state: &mut State<'_, '_>,
    rule: &FilterRule,
    function: &Value,
    args: &[Value],
) -> Result<Value, Error> {
    let is_strict = state.undefined_behavior() == UndefinedBehavior::Strict;
    if rule.needs_value() && is_strict && args.first().is_some_and(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let weight = pay(state, rule.cost, args)?;
    if let (Some(weight), Some(value)) = (weight, args.first()) {
        let items = value.len().unwrap_or_default() as u64;
        match rule.cost {
            Cost::Comparisons => charge_comparisons(state, items, 1, weight)?,
            Cost::Sort => {
                charge_comparisons(state, items, u64::from(items.max(1).ilog2()) + 1, weight)?;
            }
            Cost::Product => charge_product(state, value, args.get(1))?,
            Cost::Small | Cost::Digits | Cost::Size => {}
        }
    }
    let result = function.call(state, args)?;
    finished(state, rule, result)
}

/// Charges a list for its size, and limits a text. A list that would be computed later is computed
/// now.
fn finished(state: &State<'_, '_>, rule: &FilterRule, result: Value) -> Result<Value, Error> {
    if rule.cost == Cost::Small {
        return Ok(result);
    }
    match result.kind() {
        ValueKind::String if result.as_str().map_or(0, str::len) > MOST_TEXT_BYTES => {
            let kib = MOST_TEXT_BYTES / 1024;
            let message = format!("the filter {} made a text longer than {kib} KiB", rule.name);
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        ValueKind::Seq | ValueKind::Map => {
            charge(state, std::slice::from_ref(&result)).map(|_| result)
        }
        ValueKind::Iterable => {
            charge(state, std::slice::from_ref(&result))?;
            Ok(Value::from(result.try_iter()?.collect::<Vec<_>>()))
        }
        _ => Ok(result),
    }
}

fn tested(
    state: &mut State<'_, '_>,
    rule: &TestRule,
    function: &Value,
    args: &[Value],
) -> Result<Value, Error> {
    pay(state, rule.cost, args)?;
    function.call(state, args)
}

fn pay(state: &State<'_, '_>, cost: Cost, args: &[Value]) -> Result<Option<Weight>, Error> {
    if cost == Cost::Small {
        // The engine may go through the first value to find an item of it.
        let is_gone_through =
            |value: &&Value| matches!(value.kind(), ValueKind::Iterable | ValueKind::Map);
        let first = args.first().filter(is_gone_through);
        let items = first.and_then(Value::len).unwrap_or_default() as u64;
        state.consume_fuel(items.div_ceil(2))?;
        return Ok(None);
    }
    if cost == Cost::Digits {
        state.consume_fuel(DIGITS_FUEL)?;
        return Ok(None);
    }
    charge(state, args).map(Some)
}
