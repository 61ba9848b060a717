//! The statements of the language: text, fields, conditions, loops, `set` and `with`.

use minijinja::machinery::{
    Span,
    ast::{Expr, ForLoop, Stmt},
};

use super::{checker::Checker, violation::Violation};

/// Names that a template must not give to values of its own.
const RESERVED: [&str; 2] = ["loop", "range"];

impl Checker {
    pub(super) fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), Violation> {
        let (span, refused, instead) = match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(_) => return Ok(()),
            Stmt::EmitExpr(emit) => return self.expression(&emit.expr),
            Stmt::ForLoop(repeated) => {
                self.count(repeated.span())?;
                let span = repeated.span();
                return self.framed(span, |checker| checker.repetition(repeated, span));
            }
            Stmt::IfCond(condition) => {
                // a loop, because each `elif` is a condition within the one before
                let mut condition = condition;
                loop {
                    self.count(condition.span())?;
                    self.expression(&condition.expr)?;
                    self.branch(&condition.true_body)?;
                    match condition.false_body.as_slice() {
                        [Stmt::IfCond(next)] => condition = next,
                        otherwise => return self.branch(otherwise),
                    }
                }
            }
            Stmt::Set(set) => {
                self.count(set.span())?;
                return self.assignment(&set.target, &set.expr);
            }
            Stmt::WithBlock(with) => {
                self.count(with.span())?;
                return self.framed(with.span(), |checker| {
                    let known = checker.scope.numbers.len();
                    for (target, value) in &with.assignments {
                        checker.assignment(target, value)?;
                    }
                    checker.statements(&with.body)?;
                    checker.scope.numbers.truncate(known);
                    Ok(())
                });
            }
            Stmt::SetBlock(set) => (set.span(), "a set block", "write {% set name = value %}"),
            Stmt::AutoEscape(block) => (block.span(), "autoescape", "use the filter safe"),
            Stmt::FilterBlock(block) => {
                (block.span(), "a filter block", "apply the filter to each value")
            }
            Stmt::Block(block) => (block.span(), "a block", "write its content in place"),
            Stmt::Import(import) => (import.span(), "import", "write the content in place"),
            Stmt::FromImport(import) => (import.span(), "import", "write the content in place"),
            Stmt::Extends(extends) => (extends.span(), "extends", "write the content in place"),
            Stmt::Include(include) => (include.span(), "include", "write the content in place"),
            Stmt::Macro(declared) => (declared.span(), "a macro", "write its content in place"),
            Stmt::CallBlock(call) => (call.span(), "a call block", "write the content in place"),
            Stmt::Do(call) => (call.span(), "do", "leave it out"),
        };
        let reason = format!("{refused} is not in the template language: {instead}");
        Err(Violation::at(span, reason))
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) -> Result<(), Violation> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn repetition(&mut self, repeated: &ForLoop<'_>, span: Span) -> Result<(), Violation> {
        if repeated.recursive {
            let reason = "a recursive loop is not in the template language: write nested loops";
            return Err(Violation::at(span, reason));
        }
        self.target(&repeated.target)?;
        self.listing(&repeated.iter)?;
        // in the condition, `loop` is still that of the loop around
        if let Some(condition) = &repeated.filter_expr {
            self.expression(condition)?;
        }
        self.scope.loops += 1;
        self.branch(&repeated.body)?;
        self.scope.loops -= 1;
        self.branch(&repeated.else_body)
    }

    fn assignment(&mut self, target: &Expr<'_>, value: &Expr<'_>) -> Result<(), Violation> {
        self.target(target)?;
        self.stored(value)?;
        self.scope.assign(target, value);
        Ok(())
    }

    /// Checks statements that perhaps do not run, and then forgets what they tell about names.
    fn branch(&mut self, statements: &[Stmt<'_>]) -> Result<(), Violation> {
        let known = self.scope.numbers.len();
        self.statements(statements)?;
        self.scope.numbers.truncate(known);
        Ok(())
    }

    /// The names that a loop, `set` or `with` gives to values.
    fn target(&mut self, target: &Expr<'_>) -> Result<(), Violation> {
        let names = match target {
            Expr::Tuple(names) => names.items.as_slice(),
            Expr::List(names) => names.items.as_slice(),
            name => std::slice::from_ref(name),
        };
        for name in names {
            let span = name.span();
            self.count(span)?;
            match name {
                Expr::Var(name) if !RESERVED.contains(&name.id) => {}
                Expr::Var(name) => {
                    let reason = format!("{:?} cannot be the name of a value", name.id);
                    return Err(Violation::at(span, reason));
                }
                _ => return Err(Violation::at(span, "only a name can be assigned to")),
            }
        }
        Ok(())
    }
}
