//! Measures values and charges fuel for them, before a filter or a test works on them.

use minijinja::{Error, ErrorKind, State, Value, value::ValueKind};

/// The units of one fuel. The engine takes one fuel for 64 bytes.
const UNITS_PER_FUEL: u64 = 64;
/// The units of one value, besides its text.
const UNITS_PER_VALUE: u64 = 32;
/// The deepest value that is measured. The audience reader accepts no deeper one.
const DEEPEST: u32 = 150;
/// A comparison costs one more fuel for each so many bytes of the longest text.
const BYTES_PER_COMPARISON: u64 = 128;

/// The size of values as if each was written out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    units: u64,
    /// Bytes of the longest text.
    longest: u64,
}

impl Weight {
    /// Adds a value. `None` if the sum exceeds `most` units, or if the value is too deep.
    fn add(&mut self, value: &Value, most: u64, depth: u32) -> Option<()> {
        self.units = self.units.checked_add(UNITS_PER_VALUE)?;
        match value.kind() {
            ValueKind::String => {
                let bytes = value.as_str().map_or(0, str::len) as u64;
                self.units = self.units.checked_add(bytes)?;
                self.longest = self.longest.max(bytes);
            }
            ValueKind::Seq | ValueKind::Iterable if depth < DEEPEST => {
                for item in value.try_iter().ok()? {
                    self.add(&item, most, depth + 1)?;
                }
            }
            ValueKind::Map if depth < DEEPEST => {
                for key in value.try_iter().ok()? {
                    self.add(&key, most, depth + 1)?;
                    self.add(&value.get_item(&key).ok()?, most, depth + 1)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => return None,
            _ => {}
        }
        (self.units <= most).then_some(())
    }
}

/// Charges the whole size of these values, and returns it.
///
/// # Errors
///
/// The fuel does not suffice, or a value is too deep. The measurement ends there, so it costs no
/// more than it charges.
pub fn charge(state: &State<'_, '_>, values: &[Value]) -> Result<Weight, Error> {
    let left = state.fuel_levels().map_or(u64::MAX / UNITS_PER_FUEL, |(_, left)| left);
    let most = left.saturating_mul(UNITS_PER_FUEL);
    let mut weight = Weight::default();
    for value in values {
        if weight.add(value, most, 0).is_none() {
            // the values cost more than is left: every later step fails, too
            state.consume_fuel(left)?;
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
    }
    state.consume_fuel(weight.units.div_ceil(UNITS_PER_FUEL))?;
    Ok(weight)
}

/// Charges `rounds` comparisons for each of `items` items.
///
/// # Errors
///
/// The fuel does not suffice.
pub fn charge_comparisons(
    state: &State<'_, '_>,
    items: u64,
    rounds: u64,
    weight: Weight,
) -> Result<(), Error> {
    let each = 1 + weight.longest / BYTES_PER_COMPARISON;
    state.consume_fuel(items.saturating_mul(rounds).saturating_mul(each))
}

/// Charges the comparison of each character of a text with each of another one.
///
/// # Errors
///
/// The fuel does not suffice.
pub fn charge_product(
    state: &State<'_, '_>,
    text: &Value,
    other: Option<&Value>,
) -> Result<(), Error> {
    let bytes = |value: &Value| value.as_str().map_or(0, str::len) as u64;
    let comparisons = bytes(text).saturating_mul(other.map_or(0, bytes));
    state.consume_fuel(comparisons / UNITS_PER_FUEL)
}
