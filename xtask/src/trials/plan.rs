//! Which tests stand behind which trial.

/// The trials with their tests, as the table's rows `| T1 | .. | .. | `test`, `test` |` have them; those that one of the
/// filters names, or all if there is none.
pub(super) fn of<'a>(text: &'a str, filters: &[String]) -> Vec<(&'a str, Vec<&'a str>)> {
    let rows = text.lines().filter_map(|line| {
        let (trial, rest) = line.strip_prefix("| T")?.split_once(" |")?;
        let trial = &line[2..3 + trial.len()];
        let (_, tests) = rest.trim_end().strip_suffix(" |")?.rsplit_once("| ")?;
        Some((trial, tests.split('`').skip(1).step_by(2).collect()))
    });
    let left = |(trial, tests): (&'a str, Vec<&'a str>)| {
        let whole = filters.is_empty() || filters.iter().any(|filter| filter == trial);
        let named = |test: &&str| whole || filters.iter().any(|filter| test.contains(filter.as_str()));
        let tests: Vec<&str> = tests.into_iter().filter(named).collect();
        (!tests.is_empty()).then_some((trial, tests))
    };
    rows.filter_map(left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Trials
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
