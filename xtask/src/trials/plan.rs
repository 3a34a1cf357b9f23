//! Rows of the fault suite, and the tests of each.

/// Returns the rows `| T1 | .. | .. | `test`, `test` |` with their tests: those that a filter names, or all without
/// filters.
pub(super) fn of<'a>(text: &'a str, filters: &[String]) -> Vec<(&'a str, Vec<&'a str>)> {
    let rows = text.lines().filter_map(|line| {
        let (id, rest) = line.strip_prefix("| T")?.split_once(" |")?;
        let id = &line[2..3 + id.len()];
        let (_, tests) = rest.trim_end().strip_suffix(" |")?.rsplit_once("| ")?;
        Some((id, tests.split('`').skip(1).step_by(2).collect()))
    });
    let left = |(id, tests): (&'a str, Vec<&'a str>)| {
        let whole = filters.is_empty() || filters.iter().any(|filter| filter == id);
        let named = |test: &&str| whole || filters.iter().any(|filter| test.contains(filter.as_str()));
        let tests: Vec<&str> = tests.into_iter().filter(named).collect();
        (!tests.is_empty()).then_some((id, tests))
    };
    rows.filter_map(left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Fault suite
| | fault | outcome | tests |
| --- | --- | --- | --- |
| T1 | forged `frontend` | untouched | `one_test`, `another_test` |
| T2 | none yet | - | – |
| T13 | an event | converges | `one_more` |
";

    fn filtered(filters: &[&str]) -> Vec<(&'static str, Vec<&'static str>)> {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        of(TEXT, &filters)
    }

    #[test]
    fn rows_without_tests_are_skipped() {
        let all = [("T1", vec!["one_test", "another_test"]), ("T13", vec!["one_more"])];
        assert_eq!(filtered(&[]), all);
    }

    #[test]
    fn filter_is_a_row_id_or_part_of_a_test_name() {
        assert_eq!(filtered(&["T1"]), [("T1", vec!["one_test", "another_test"])]);
        assert_eq!(
            filtered(&["one"]),
            [("T1", vec!["one_test"]), ("T13", vec!["one_more"])]
        );
        assert_eq!(filtered(&["T1", "more"]).len(), 2);
        assert!(filtered(&["T2"]).is_empty());
    }
}
