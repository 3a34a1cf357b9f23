//! Errors with their causes in one line. An error names its own part only; the code that prints it joins the chain.

use std::{error::Error, fmt};

/// Formats an error and its causes, joined by `: `.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(formatter, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn chain_joins_the_causes() {
        let error = Outer("/a", io::Error::other("no such file"));
        assert_eq!(Chain(&error).to_string(), "cannot read /a: no such file");
    }
}
