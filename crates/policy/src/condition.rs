//! The raw `when` of a rule: exactly one Cedar expression, so that what is joined around it cannot be closed or commented out from within.

use std::str::FromStr;

use cedar_policy::{Expression, Policy};

/// Longest raw condition, in bytes.
pub const MAX_CONDITION_BYTES: usize = 16 * 1024;
/// Deepest nesting of brackets, and most `if`s, in one condition.
pub const MAX_CONDITION_DEPTH: usize = 32;

/// None if `text` is exactly one Cedar expression, else the reason with its position (`line:column: …`).
#[must_use]
pub fn check_condition(text: &str) -> Option<String> {
    if text.len() > MAX_CONDITION_BYTES {
        return Some(format!("1:1: a condition has at most {MAX_CONDITION_BYTES} bytes, this one has {}", text.len()));
    }
    if let Some(offset) = too_deep(text) {
        return Some(format!("{}: brackets and `if`s nest at most {MAX_CONDITION_DEPTH} deep", position(text, offset)));
    }
    if let Err(errors) = Expression::from_str(text) {
        return Some(describe(text, &errors));
    }
    // As an expression a template's slot parses; in a policy of its own it does not.
    let errors = Policy::parse(None, format!("permit(principal, action, resource) when {{\n{text}\n}};")).err()?;
    Some(format!("1:1: {errors}"))
}

/// `line:column: message` of the first parse error, columns in characters.
pub(crate) fn describe(text: &str, errors: &cedar_policy::ParseErrors) -> String {
    let error = errors.iter().next();
    let offset = error.and_then(miette_offset).unwrap_or(0);
    let message = error.map_or_else(|| errors.to_string(), ToString::to_string);
    format!("{}: {message}", position(text, offset))
}

fn miette_offset(error: &cedar_policy::ParseError) -> Option<usize> {
    use miette::Diagnostic;
    error.labels()?.next().map(|label| label.offset())
}

fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{line}:{column}")
}

/// Where nesting passes the bound. Recursion in the parser's tree is what this bounds, so a bracket in a string or comment may count too.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut ifs = 0usize;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'i' if text.get(offset..).is_some_and(|rest| rest.starts_with("if")) => {
                let starts =
                    offset == 0 || !text.as_bytes().get(offset - 1).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
                ifs += usize::from(starts);
            }
            _ => {}
        }
        if depth > MAX_CONDITION_DEPTH || ifs > MAX_CONDITION_DEPTH {
            return Some(offset);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expression_is_accepted() {
        for text in [
            "true",
            "context.strength >= 2 && principal.name == \"anna\"",
            "if resource.hasTag(\"owner\") then resource.getTag(\"owner\") == principal.name else false",
            "true // with a comment",
            "\"} ; permit(principal, action, resource);\" == \"x\"",
        ] {
            assert_eq!(check_condition(text), None, "{text}");
        }
    }

    #[test]
    fn text_that_would_leave_its_braces_is_refused() {
        for text in [
            "",
            "   ",
            "// only a comment",
            "true }; permit(principal, action, resource); permit(principal, action, resource) when { true",
            "true } unless { false",
            "true }",
            "{ true",
            "(true",
            "true)",
            "true; true",
            "true, true",
            "\"unterminated",
            "permit(principal, action, resource);",
            "?principal == principal",
        ] {
            assert!(check_condition(text).is_some(), "{text}");
        }
    }

    #[test]
    fn refusal_names_line_and_column() {
        let message = check_condition("true &&\n  == 3").unwrap_or_default();
        assert!(message.starts_with("2:3: "), "{message}");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(check_condition(&nested(MAX_CONDITION_DEPTH)), None);
        assert!(check_condition(&nested(MAX_CONDITION_DEPTH + 1)).is_some());
        let ifs = |count: usize| format!("{}true{}", "if true then ".repeat(count), " else false".repeat(count));
        assert_eq!(check_condition(&ifs(MAX_CONDITION_DEPTH)), None);
        assert!(check_condition(&ifs(MAX_CONDITION_DEPTH + 1)).is_some());
    }

    #[test]
    fn length_is_bounded() {
        let padded = |length: usize| format!("true{}", " ".repeat(length - 4));
        assert_eq!(check_condition(&padded(MAX_CONDITION_BYTES)), None);
        assert!(check_condition(&padded(MAX_CONDITION_BYTES + 1)).is_some());
    }
}
