//! The expressions of the language: fields, constants, filters, tests, comparisons and sums.

use minijinja::machinery::{
    Span,
    ast::{BinOp, BinOpKind, Call, CallArg, CompareOpKind, Expr, Filter, GetItem},
};

use super::{
    checker::Checker,
    filter_rules::{FilterResult, FilterRule},
    kinds::{is_constant, is_joined},
    test_rules::TestRule,
    violation::Violation,
};

/// The largest constant index, and the largest step of a range.
const MOST_INDEX: i64 = 1000;
/// The longest path to an attribute, and the most keys of a sort.
const LONGEST_PATH: usize = 100;
const MOST_KEYS: usize = 4;

type Checked = Result<(), Violation>;

fn refuse(span: Span, reason: impl Into<String>) -> Checked {
    Err(Violation::at(span, reason))
}

impl Checker {
    /// Checks the value that a loop goes through.
    pub(super) fn listing(&mut self, expr: &Expr<'_>) -> Checked {
        if let Expr::Filter(filter) = expr
            && let Some(rule) = FilterRule::find(filter.name)
            && rule.result == FilterResult::ListOfLists
        {
            self.count(filter.span())?;
            return self.filter(filter, filter.span(), true);
        }
        self.stored(expr)
    }

    /// Checks a value that gets a name, so that the template may use it often.
    pub(super) fn stored(&mut self, expr: &Expr<'_>) -> Checked {
        self.expression(expr)?;
        if is_joined(expr) {
            let reason = "a text joined by ~ gets no name and no loop: \
                          apply a filter to it, such as (a ~ b)|string";
            return refuse(expr.span(), reason);
        }
        Ok(())
    }

    pub(super) fn expression(&mut self, expr: &Expr<'_>) -> Checked {
        self.within(expr.span(), |checker| checker.expression_within(expr))
    }

    fn expression_within(&mut self, expr: &Expr<'_>) -> Checked {
        let span = expr.span();
        match expr {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::UnaryOp(unary) => self.expression(&unary.expr),
            Expr::GetAttr(attribute) => self.expression(&attribute.expr),
            Expr::GetItem(item) => self.item(item, span),
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                choice.false_expr.iter().try_for_each(|otherwise| self.expression(otherwise))
            }
            Expr::BinOp(operation) => self.operation(operation, span),
            Expr::Compare(chain) => {
                self.expression(&chain.expr)?;
                let mut left = &chain.expr;
                for step in &chain.ops {
                    self.expression(&step.expr)?;
                    let is_search = matches!(step.op, CompareOpKind::In | CompareOpKind::NotIn);
                    self.comparison(left, &step.expr, is_search, span)?;
                    left = &step.expr;
                }
                Ok(())
            }
            Expr::Filter(filter) => self.filter(filter, span, false),
            Expr::Test(test) => {
                self.expression(&test.expr)?;
                let Some(rule) = TestRule::find(test.name) else {
                    return refuse(span, unknown("test", test.name));
                };
                if test.args.len() != rule.arguments {
                    let reason =
                        format!("the test {} takes {} arguments", rule.name, rule.arguments);
                    return refuse(span, reason);
                }
                test.args.iter().try_for_each(|argument| match argument {
                    CallArg::Pos(value) => self.expression(value),
                    _ => refuse(span, "a test takes plain arguments only"),
                })
            }
            Expr::Call(call) => self.call(call, span),
            Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) if is_constant(expr) => Ok(()),
            Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => refuse(
                span,
                "a list or map may hold constants only: values of fields cannot be put into one",
            ),
            Expr::Slice(_) => refuse(
                span,
                "a slice is not in the template language: \
                 write {% if loop.index <= 3 %} in a loop, or the filters first and last",
            ),
        }
    }

    fn operation(&mut self, operation: &BinOp<'_>, span: Span) -> Checked {
        let (left, right) = (&operation.left, &operation.right);
        self.expression(left)?;
        self.expression(right)?;
        match operation.op {
            BinOpKind::ScAnd
            | BinOpKind::ScOr
            | BinOpKind::Concat
            | BinOpKind::Sub
            | BinOpKind::Div
            | BinOpKind::FloorDiv
            | BinOpKind::Rem => Ok(()),
            BinOpKind::Add if self.scope.is_number(left) || self.scope.is_number(right) => Ok(()),
            BinOpKind::Add => refuse(
                span,
                "one side of + must be a number: write a|int + b or a|float + b, and a ~ b to join",
            ),
            BinOpKind::Mul if self.scope.is_number(left) && self.scope.is_number(right) => Ok(()),
            BinOpKind::Mul => refuse(
                span,
                "both sides of * must be numbers: write a|int * b|int or a|float * b|float",
            ),
            BinOpKind::Pow => refuse(span, "** is not in the template language: write a product"),
            BinOpKind::In => self.comparison(left, right, true, span),
            BinOpKind::Eq
            | BinOpKind::Ne
            | BinOpKind::Lt
            | BinOpKind::Lte
            | BinOpKind::Gt
            | BinOpKind::Gte => self.comparison(left, right, false, span),
        }
    }

    /// Checks a comparison. With `is_search`, the operator is `in` or `not in`.
    fn comparison(
        &self,
        left: &Expr<'_>,
        right: &Expr<'_>,
        is_search: bool,
        span: Span,
    ) -> Checked {
        let is_plain = |side: &Expr<'_>| is_constant(side) || self.scope.is_number(side);
        if is_search {
            let in_constant_list = is_constant(right) && !matches!(right, Expr::Const(_));
            if is_plain(left) || in_constant_list {
                return Ok(());
            }
            return refuse(
                span,
                "one side of in must be a constant, as in \"x\" in list or \
                 field in [\"a\", \"b\"]: otherwise write a is in(b)",
            );
        }
        if is_plain(left) || is_plain(right) {
            return Ok(());
        }
        refuse(
            span,
            "one side of a comparison must be a constant or a number: otherwise write a is eq(b), \
             with ne, lt, le, gt, ge for the other comparisons",
        )
    }

    fn item(&mut self, item: &GetItem<'_>, span: Span) -> Checked {
        self.expression(&item.expr)?;
        self.expression(&item.subscript_expr)?;
        let is_map = matches!(item.expr, Expr::Map(_));
        let is_index = match &item.subscript_expr {
            Expr::Const(index) => match index.value.as_i64() {
                Some(index) => (0..=MOST_INDEX).contains(&index),
                None => index.value.as_str().is_some(),
            },
            _ => false,
        };
        if is_map || is_index {
            return Ok(());
        }
        let reason = format!(
            "an index must be a text or a number from 0 to {MOST_INDEX}: \
             otherwise write a|attr(b), or the filter last"
        );
        refuse(span, reason)
    }

    fn filter(&mut self, filter: &Filter<'_>, span: Span, in_loop: bool) -> Checked {
        if let Some(value) = &filter.expr {
            self.expression(value)?;
        }
        let Some(rule) = FilterRule::find(filter.name) else {
            return refuse(span, unknown("filter", filter.name));
        };
        if rule.result == FilterResult::ListOfLists && !in_loop {
            let reason = format!("the filter {} may only be the list of a loop", rule.name);
            return refuse(span, reason);
        }
        let mut positional = Vec::new();
        for argument in &filter.args {
            match argument {
                CallArg::Pos(value) => {
                    self.expression(value)?;
                    positional.push(value);
                }
                CallArg::Kwarg(name, value) => {
                    self.count(span)?;
                    if !rule.arguments.keywords.contains(name) || !is_constant(value) {
                        let reason = format!(
                            "the filter {} takes no {name}={}",
                            rule.name,
                            if is_constant(value) { "…" } else { "value: only constants" }
                        );
                        return refuse(span, reason);
                    }
                    if *name == "attribute" {
                        self.path(value)?;
                    }
                }
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return refuse(span, "* and ** for arguments are not in the template language");
                }
            }
        }
        if positional.len() > rule.arguments.most {
            let reason =
                format!("the filter {} takes at most {} arguments", rule.name, rule.arguments.most);
            return refuse(span, reason);
        }
        if rule.arguments.constant && !positional.iter().all(|value| is_constant(value)) {
            return refuse(span, format!("the arguments of {} must be constants", rule.name));
        }
        self.named(rule, &positional, span)
    }

    /// Checks the path to an attribute, as in `sort(attribute="address.city")`.
    ///
    /// A long path would be followed for each item.
    fn path(&self, path: &Expr<'_>) -> Checked {
        let Expr::Const(constant) = path else { return Ok(()) };
        let text = constant.value.as_str().unwrap_or_default();
        if text.len() > LONGEST_PATH || text.matches(',').count() >= MOST_KEYS {
            let reason =
                format!("an attribute has at most {LONGEST_PATH} bytes and {MOST_KEYS} keys");
            return refuse(path.span(), reason);
        }
        Ok(())
    }

    /// Checks the filter or test that a filter such as `map` or `select` applies by name.
    fn named(&self, rule: &FilterRule, positional: &[&Expr<'_>], span: Span) -> Checked {
        if matches!(rule.name, "selectattr" | "rejectattr" | "sum") {
            positional.first().map_or(Ok(()), |path| self.path(path))?;
        }
        let at = match rule.name {
            "map" | "select" | "reject" => 0,
            "selectattr" | "rejectattr" => 1,
            _ => return Ok(()),
        };
        let Some(Expr::Const(name)) = positional.get(at) else { return Ok(()) };
        let name = name.value.as_str().unwrap_or_default();
        match rule.name {
            "map" if FilterRule::find(name).is_some_and(FilterRule::is_for_items) => Ok(()),
            "map" => refuse(
                span,
                format!("map cannot apply {name:?}: it is no filter, or its results may be lists"),
            ),
            _ if TestRule::find(name).is_some() => Ok(()),
            _ => refuse(span, unknown("test", name)),
        }
    }

    /// Only `range(..)` and `loop.cycle(..)` can be called.
    fn call(&mut self, call: &Call<'_>, span: Span) -> Checked {
        let mut arguments = Vec::new();
        for argument in &call.args {
            let CallArg::Pos(value) = argument else {
                return refuse(span, "a call takes plain arguments only");
            };
            self.expression(value)?;
            arguments.push(value);
        }
        match &call.expr {
            Expr::Var(function) if function.id == "range" => match arguments.as_slice() {
                [_] | [_, _] => Ok(()),
                [_, _, Expr::Const(step)]
                    if step.value.as_i64().is_some_and(|step| step.abs() <= MOST_INDEX) =>
                {
                    Ok(())
                }
                _ => refuse(
                    span,
                    "range takes a start, an end, and a constant of at most 1000 as its step",
                ),
            },
            Expr::GetAttr(method) if method.name == "cycle" && self.scope.is_loop(&method.expr) => {
                match !arguments.is_empty() && arguments.iter().all(|value| is_constant(value)) {
                    true => Ok(()),
                    false => refuse(span, "loop.cycle takes constants"),
                }
            }
            _ => refuse(
                span,
                "only range(..) and loop.cycle(..) can be called: write a filter, such as a|upper",
            ),
        }
    }
}

fn unknown(kind: &str, name: &str) -> String {
    format!("the {kind} {name} is not in the template language")
}
