//! The command line: what there is to be played, one module for each family of subcommands.

pub mod compare;
mod file;
pub mod generate;
pub mod nodes;
pub mod plan;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Plays thousands of whole machines against a boot server.
#[derive(Parser)]
#[command(version, after_help = nodes::EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Nodes(Box<nodes::Scenario>),
    /// Compares two reports: ratios by stage, time, failures, bytes, CPU.
    Compare(compare::CompareArguments),
    /// Says what a rack for so many machines would need.
    Plan(Box<plan::PlanArguments>),
    /// Plays what a file says: TOML with `scenario = "NAME"` and that scenario's options as keys.
    Run {
        /// The file.
        file: PathBuf,
    },
    #[command(flatten)]
    Generate(generate::Generate),
}

/// Does what was asked for. True when all went well, false when something that was played failed.
///
/// # Errors
/// What could not be done at all, in a sentence.
pub fn run(arguments: Arguments) -> Result<bool, String> {
    match arguments.command {
        Command::Nodes(scenario) => nodes::run(&scenario),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Run { file } => {
            let words = file::command_line(&file)?;
            let arguments = Arguments::try_parse_from(words)
                .map_err(|error| format!("`{}`: {}", file.display(), error.to_string().trim_end()))?;
            run(arguments)
        }
        Command::Generate(generate) => generate::run(&generate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Parses a command line as a shell would hand it over.
    pub fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert!(parse("loadgen").is_err() && parse("loadgen nonsense").is_err());
    }

    #[test]
    fn the_examples_of_comparisons_parse() {
        let examples: Vec<&str> =
            compare::EXAMPLES.lines().filter_map(|line| line.strip_prefix("  loadgen ")).collect();
        assert_eq!(examples.len(), 1);
        assert!(examples.iter().all(|example| parse(&format!("loadgen {example}")).is_ok()));
        let missing = parse("loadgen compare no-such-a.json no-such-b.json").map(run);
        assert!(missing.is_ok_and(|result| result.is_err_and(|error| error.contains("no-such-a.json"))));
    }

    #[test]
    fn the_examples_of_plans_parse() {
        let examples: Vec<&str> = plan::EXAMPLES.lines().filter_map(|line| line.strip_prefix("  loadgen ")).collect();
        assert_eq!(examples.len(), 2);
        assert!(examples.iter().all(|example| parse(&format!("loadgen {example}")).is_ok()));
    }

    #[test]
    fn a_file_says_what_flags_say_and_unknown_keys_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("scenario.toml");
        let text = "scenario = \"storm\"\ninterface = \"x\"\nnodes = 3\nprint-schedule = true\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(run(parse(&format!("loadgen run {}", file.display())).unwrap()), Ok(true));
        std::fs::write(&file, format!("{text}colour = \"red\"\n")).unwrap();
        let refused = run(parse(&format!("loadgen run {}", file.display())).unwrap()).unwrap_err();
        assert!(refused.contains("--colour"), "{refused}");
    }

    #[test]
    fn the_examples_of_whole_nodes_parse() {
        let examples: Vec<&str> = nodes::EXAMPLES.lines().filter_map(|line| line.strip_prefix("  loadgen ")).collect();
        assert_eq!(examples.len(), 7);
        for example in examples {
            assert!(parse(&format!("loadgen {example}")).is_ok(), "{example}");
        }
    }
}
