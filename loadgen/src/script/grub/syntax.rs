//! The text of a GRUB configuration as commands: words with their quotes and variables, blocks, conditions, loops, functions
//! and `menuentry` (GRUB manual §6.2, “Writing full configuration files directly”).

use crate::limits::SCRIPT_DEPTH_MAX;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A command and its arguments.
    Command(Vec<Word>),
    /// `if … then … elif … else … fi`: the arms in order (condition, body), then what else.
    If(Vec<(Vec<Statement>, Vec<Statement>)>, Vec<Statement>),
    /// `while … do … done`, or `until`: the condition and the body.
    While {
        /// What is looked at before each round.
        condition: Vec<Statement>,
        /// One round.
        body: Vec<Statement>,
        /// Whether it ends when the condition holds, instead of when it does not.
        until: bool,
    },
    /// `for NAME in …; do … done`.
    For(String, Vec<Word>, Vec<Statement>),
    /// `function NAME { … }`.
    Function(String, Vec<Statement>),
    /// `menuentry` or `submenu`: its arguments and what is in its braces.
    Entry(Vec<Word>, Vec<Statement>),
}

/// A word of a command: pieces that stand together.
pub type Word = Vec<Piece>;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// A variable's value; unquoted it may be several words.
    Variable {
        /// Its name.
        name: String,
        /// Whether it stands in double quotes.
        is_quoted: bool,
    },
}

/// Parses a configuration.
///
/// # Errors
/// What is not understood.
pub fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let statements = parser.statements(&[], 0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(statements),
        Some(_) => Err("configuration has a stray `}` or keyword".to_owned()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A newline or `;`.
    End,
    Open,
    Close,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    /// Statements up to one of these keywords, a `}` or the end; none of those is taken.
    fn statements(&mut self, until: &[&str], depth: usize) -> Result<Vec<Statement>, String> {
        if depth > SCRIPT_DEPTH_MAX {
            return Err("configuration is too deep".to_owned());
        }
        let mut statements = Vec::new();
        loop {
            match self.tokens.get(self.at) {
                None | Some(Token::Close) => return Ok(statements),
                Some(Token::End) => self.at += 1,
                Some(Token::Open) => return Err("configuration has a stray `{`".to_owned()),
                Some(Token::Word(word)) => {
                    let keyword = plain(word).unwrap_or_default().to_owned();
                    if until.contains(&keyword.as_str()) {
                        return Ok(statements);
                    }
                    statements.push(match keyword.as_str() {
                        "if" => self.condition(depth)?,
                        "while" | "until" => self.repetition(depth)?,
                        "for" => self.each(depth)?,
                        "function" => self.function(depth)?,
                        "menuentry" | "submenu" => self.entry(depth)?,
                        _ => Statement::Command(self.words()),
                    });
                }
            }
        }
    }

    /// The words up to the end of the command.
    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.get(self.at) {
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn condition(&mut self, depth: usize) -> Result<Statement, String> {
        let (mut arms, mut otherwise) = (Vec::new(), Vec::new());
        loop {
            let keyword = self.keyword();
            match keyword.as_str() {
                "if" | "elif" => {
                    let condition = self.statements(&["then"], depth + 1)?;
                    self.expect("then")?;
                    arms.push((condition, self.statements(&["elif", "else", "fi"], depth + 1)?));
                }
                "else" => otherwise = self.statements(&["fi"], depth + 1)?,
                "fi" => return Ok(Statement::If(arms, otherwise)),
                _ => return Err("`if` without `fi`".to_owned()),
            }
        }
    }

    fn repetition(&mut self, depth: usize) -> Result<Statement, String> {
        let until = self.keyword() == "until";
        let condition = self.statements(&["do"], depth + 1)?;
        self.expect("do")?;
        let body = self.statements(&["done"], depth + 1)?;
        self.expect("done")?;
        Ok(Statement::While { condition, body, until })
    }

    fn each(&mut self, depth: usize) -> Result<Statement, String> {
        self.keyword();
        let name = self.keyword();
        self.expect("in")?;
        let words = self.words();
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
        self.expect("do")?;
        let body = self.statements(&["done"], depth + 1)?;
        self.expect("done")?;
        Ok(Statement::For(name, words, body))
    }

    fn function(&mut self, depth: usize) -> Result<Statement, String> {
        self.keyword();
        let name = self.keyword();
        Ok(Statement::Function(name, self.braces("function", depth)?))
    }

    fn entry(&mut self, depth: usize) -> Result<Statement, String> {
        let words = self.words();
        Ok(Statement::Entry(words, self.braces("menuentry", depth)?))
    }

    /// What is in the braces that follow; the first may stand on a line of its own.
    fn braces(&mut self, of: &str, depth: usize) -> Result<Vec<Statement>, String> {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
        if self.tokens.get(self.at) != Some(&Token::Open) {
            return Err(format!("`{of}` without `{{`"));
        }
        self.at += 1;
        let body = self.statements(&[], depth + 1)?;
        if self.tokens.get(self.at) != Some(&Token::Close) {
            return Err(format!("`{of}` without `}}`"));
        }
        self.at += 1;
        Ok(body)
    }

    fn keyword(&mut self) -> String {
        let keyword = match self.tokens.get(self.at) {
            Some(Token::Word(word)) => plain(word).unwrap_or_default().to_owned(),
            Some(Token::End | Token::Open | Token::Close) | None => String::new(),
        };
        self.at += 1;
        keyword
    }

    fn expect(&mut self, keyword: &str) -> Result<(), String> {
        if self.keyword() == keyword { Ok(()) } else { Err(format!("`{keyword}` is missing")) }
    }
}

/// The word, if it is one piece of text.
fn plain(word: &Word) -> Option<&str> {
    match word.as_slice() {
        [Piece::Text(text)] => Some(text),
        _ => None,
    }
}

/// Cuts the text into tokens. Quotes and backslashes as in a shell; `#` at a word's beginning starts a comment.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut word: Option<Word> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                // A line that goes on.
                Some('\n') | None => {}
                Some(escaped) => push(&mut word, escaped),
            },
            '\'' => {
                word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(quoted) => push(&mut word, quoted),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(escaped @ ('"' | '\\' | '$')) => push(&mut word, escaped),
                            Some(other) => {
                                push(&mut word, '\\');
                                push(&mut word, other);
                            }
                            None => return Err("a quote is not closed".to_owned()),
                        },
                        Some('$') => variable(&mut characters, &mut word, true),
                        Some(quoted) => push(&mut word, quoted),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            '$' => variable(&mut characters, &mut word, false),
            '#' if word.is_none() => while characters.next_if(|next| *next != '\n').is_some() {},
            ' ' | '\t' | '\r' => tokens.extend(word.take().map(Token::Word)),
            '\n' | ';' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::End);
            }
            // Braces are syntax only when they stand alone.
            '{' | '}'
                if word.is_none() && characters.peek().is_none_or(|next| next.is_whitespace() || *next == ';') =>
            {
                tokens.push(if character == '{' { Token::Open } else { Token::Close });
            }
            other => push(&mut word, other),
        }
    }
    tokens.extend(word.take().map(Token::Word));
    Ok(tokens)
}

fn push(word: &mut Option<Word>, character: char) {
    let word = word.get_or_insert_default();
    match word.last_mut() {
        Some(Piece::Text(text)) => text.push(character),
        Some(Piece::Variable { .. }) | None => word.push(Piece::Text(character.to_string())),
    }
}

/// `$name`, `${name}`; a lone `$` stands for itself.
fn variable(characters: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut Option<Word>, is_quoted: bool) {
    let mut name = String::new();
    if characters.next_if_eq(&'{').is_some() {
        name.extend(std::iter::from_fn(|| characters.next_if(|next| *next != '}')));
        characters.next();
    } else if let Some(special) = characters.next_if(|next| matches!(next, '?' | '#' | '@')) {
        name.push(special);
    } else {
        name.extend(std::iter::from_fn(|| characters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_')));
    }
    if name.is_empty() {
        push(word, '$');
    } else {
        word.get_or_insert_default().push(Piece::Variable { name, is_quoted });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_variables_and_comments() {
        let statements = parse("echo 'a $b' \"c $d\"x ${e}f # no\nset x=\\\n1; boot").unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let variable = |name: &str, is_quoted| Piece::Variable { name: name.to_owned(), is_quoted };
        let words = vec![
            vec![text("echo")],
            vec![text("a $b")],
            vec![text("c "), variable("d", true), text("x")],
            vec![variable("e", false), text("f")],
        ];
        assert_eq!(statements[0], Statement::Command(words));
        assert_eq!(statements[1], Statement::Command(vec![vec![text("set")], vec![text("x=1")]]));
        assert_eq!(statements.len(), 3);
    }

    #[test]
    fn blocks_and_conditions_are_nested() {
        let text =
            "if [ a = b ]; then\n  x\nelif true; then y\nelse\n z\nfi\nmenuentry 'A b' --id a {\n  linux /k\n}\n";
        let statements = parse(text).unwrap();
        assert!(matches!(&statements[0], Statement::If(arms, otherwise) if arms.len() == 2 && otherwise.len() == 1));
        assert!(matches!(&statements[1], Statement::Entry(words, body) if words.len() == 4 && body.len() == 1));
    }

    #[test]
    fn loops_and_functions_have_their_bodies() {
        let statements =
            parse("function f {\n x $1\n}\nfor a in 1 $b; do\n y\ndone\nuntil [ c ]; do z; done\nf").unwrap();
        assert!(matches!(&statements[0], Statement::Function(name, body) if name == "f" && body.len() == 1));
        assert!(matches!(&statements[1], Statement::For(name, words, body)
            if name == "a" && words.len() == 2 && body.len() == 1));
        assert!(matches!(&statements[2], Statement::While { until: true, condition, body }
            if condition.len() == 1 && body.len() == 1));
        assert_eq!(statements.len(), 4);
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_told() {
        for (text, told) in [
            ("if true; then x", "`if` without `fi`"),
            ("menuentry x", "`menuentry` without `{`"),
            ("menuentry x { y", "`menuentry` without `}`"),
            ("echo 'x", "a quote is not closed"),
            ("}", "configuration has a stray `}` or keyword"),
            ("function f { x", "`function` without `}`"),
            ("if true; fi", "`then` is missing"),
            ("while true; x", "`do` is missing"),
            ("for x y; do z; done", "`in` is missing"),
        ] {
            assert_eq!(parse(text), Err(told.to_owned()), "{text}");
        }
    }
}
