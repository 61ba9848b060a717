//! Tells whether an expression is a constant, and whether it may be a text that `~` made.

use minijinja::{
    Value,
    machinery::ast::{BinOpKind, CallArg, Expr, UnaryOpKind},
};

use super::filter_rules::{FilterResult, FilterRule};

/// Whether the value is written in the template: a plain constant, or a flat list or map of these.
pub(super) fn is_constant(expr: &Expr<'_>) -> bool {
    let is_plain = |expr: &Expr<'_>| match expr {
        Expr::Const(constant) => is_plain_value(&constant.value),
        Expr::UnaryOp(unary) if matches!(unary.op, UnaryOpKind::Neg) => {
            matches!(&unary.expr, Expr::Const(constant) if constant.value.is_number())
        }
        _ => false,
    };
    match expr {
        Expr::List(list) => list.items.iter().all(is_plain),
        Expr::Tuple(tuple) => tuple.items.iter().all(is_plain),
        Expr::Map(map) => map.keys.iter().chain(&map.values).all(is_plain),
        expr => is_plain(expr),
    }
}

fn is_plain_value(value: &Value) -> bool {
    value.as_object().is_none()
}

/// Whether the value may be a text that `~` made. Such a text may be much longer than a field.
pub(super) fn is_joined(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::BinOp(operation) => match operation.op {
            BinOpKind::Concat => true,
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                is_joined(&operation.left) || is_joined(&operation.right)
            }
            _ => false,
        },
        Expr::IfExpr(choice) => {
            is_joined(&choice.true_expr) || choice.false_expr.as_ref().is_some_and(is_joined)
        }
        Expr::Filter(filter) => {
            let is_passed = FilterRule::find(filter.name)
                .is_some_and(|rule| rule.result == FilterResult::Passed);
            is_passed
                && (filter.expr.as_ref().is_some_and(is_joined)
                    || filter.args.iter().any(|argument| match argument {
                        CallArg::Pos(value) | CallArg::Kwarg(_, value) => is_joined(value),
                        CallArg::PosSplat(value) | CallArg::KwargSplat(value) => is_joined(value),
                    }))
        }
        _ => false,
    }
}
