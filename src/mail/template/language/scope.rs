//! What is known about the names at one place of a template.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Filter, Stmt, UnaryOpKind};

use super::filter_rules::{FilterResult, FilterRule};

/// The attributes of `loop` that are numbers.
const LOOP_NUMBERS: [&str; 7] =
    ["index", "index0", "revindex", "revindex0", "length", "depth", "depth0"];

/// The names at one place of a template.
#[derive(Default)]
pub(super) struct Scope {
    /// The number of loops around the place.
    pub(super) loops: u32,
    /// Names that hold a number, whichever way led to the place.
    pub(super) numbers: Vec<String>,
    /// Names that may hold something else somewhere in the template.
    others: BTreeSet<String>,
}

impl Scope {
    /// The scope at the start of a template.
    pub(super) fn of(tree: &Stmt<'_>) -> Self {
        let mut scope = Self::default();
        let mut open = vec![tree];
        while let Some(statement) = open.pop() {
            match statement {
                Stmt::Template(template) => open.extend(&template.children),
                Stmt::IfCond(condition) => {
                    open.extend(condition.true_body.iter().chain(&condition.false_body));
                }
                Stmt::ForLoop(repeated) => {
                    scope.others.extend(names(&repeated.target));
                    open.extend(repeated.body.iter().chain(&repeated.else_body));
                }
                Stmt::Set(set) => scope.note(&set.target, &set.expr),
                Stmt::WithBlock(with) => {
                    with.assignments.iter().for_each(|(target, value)| scope.note(target, value));
                    open.extend(&with.body);
                }
                // no other statement of the language contains an assignment
                _ => {}
            }
        }
        scope
    }

    fn note(&mut self, target: &Expr<'_>, value: &Expr<'_>) {
        if !matches!(target, Expr::Var(_)) || !self.is_number(value) {
            self.others.extend(names(target));
        }
    }

    /// Notes that a name got a value.
    pub(super) fn assign(&mut self, target: &Expr<'_>, value: &Expr<'_>) {
        if let Expr::Var(name) = target
            && !self.others.contains(name.id)
            && self.is_number(value)
        {
            self.numbers.push(name.id.to_owned());
        }
    }

    /// Whether the value is a number for every recipient, or an error.
    pub(super) fn is_number(&self, expr: &Expr<'_>) -> bool {
        match expr {
            Expr::Const(constant) => constant.value.is_number(),
            Expr::Var(name) => self.numbers.iter().any(|number| number == name.id),
            Expr::UnaryOp(unary) => matches!(unary.op, UnaryOpKind::Neg),
            // The checker requires a number on one side of `+` and on both sides of `*`. The other
            // operators here take only numbers.
            Expr::BinOp(operation) => matches!(
                operation.op,
                BinOpKind::Add
                    | BinOpKind::Sub
                    | BinOpKind::Mul
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem
            ),
            Expr::Filter(filter) => self.is_number_filter(filter),
            Expr::GetAttr(attribute) => {
                LOOP_NUMBERS.contains(&attribute.name) && self.is_loop(&attribute.expr)
            }
            Expr::IfExpr(choice) => {
                self.is_number(&choice.true_expr)
                    && choice.false_expr.as_ref().is_some_and(|other| self.is_number(other))
            }
            _ => false,
        }
    }

    /// Whether a filter gives a number. `int` and `float` may give their default instead, so the
    /// default must be a number, too.
    fn is_number_filter(&self, filter: &Filter<'_>) -> bool {
        let is_number_kind =
            FilterRule::find(filter.name).is_some_and(|rule| rule.result == FilterResult::Number);
        is_number_kind
            && (!matches!(filter.name, "int" | "float")
                || filter.args.iter().all(|argument| match argument {
                    CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.is_number(value),
                    CallArg::PosSplat(_) | CallArg::KwargSplat(_) => false,
                }))
    }

    /// Whether the value is the `loop` of a loop around the place.
    pub(super) fn is_loop(&self, expr: &Expr<'_>) -> bool {
        self.loops > 0 && matches!(expr, Expr::Var(name) if name.id == "loop")
    }
}

fn names(target: &Expr<'_>) -> Vec<String> {
    let targets = match target {
        Expr::Tuple(tuple) => tuple.items.as_slice(),
        Expr::List(list) => list.items.as_slice(),
        name => std::slice::from_ref(name),
    };
    let name = |target: &Expr<'_>| match target {
        Expr::Var(name) => Some(name.id.to_owned()),
        _ => None,
    };
    targets.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use crate::mail::template::check_language;

    #[test]
    fn a_name_is_a_number_only_where_it_certainly_holds_one() {
        for good in [
            "{% set n = a|int %}{% if b %}{{ n * 2 }}{% endif %}",
            "{% with n = 3 %}{{ n * 2 }}{% endwith %}",
            "{% set n = a / b %}{% set m = n * 2 %}{% for x in l %}{{ m * n }}{% endfor %}",
        ] {
            assert_eq!(check_language(good), Ok(()), "{good}");
        }
        for bad in [
            "{% if b %}{% set n = 1 %}{% endif %}{{ n * 2 }}",
            "{% for x in l %}{% set n = 1 %}{% endfor %}{{ n * 2 }}",
            "{% for x in l %}{% else %}{% set n = 1 %}{% endfor %}{{ n * 2 }}",
            "{% with n = 3 %}{% endwith %}{{ n * 2 }}",
            "{{ n * 2 }}{% set n = 1 %}",
            "{% set n = 1 %}{% for x in l %}{{ n * 2 }}{% set n = l %}{% endfor %}",
            "{% set n = 1 %}{% for n in l %}{{ n * 2 }}{% endfor %}",
            "{% set n = 1 %}{% for n, m in l %}{% endfor %}{{ n * 2 }}",
            "{% set n = 1 %}{% with n = l %}{{ n * 2 }}{% endwith %}",
            "{% set n = n|int([1]) %}{{ n * 2 }}",
        ] {
            assert!(check_language(bad).is_err(), "{bad}");
        }
    }
}
