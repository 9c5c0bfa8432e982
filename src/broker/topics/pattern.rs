//! Patterns over topic names: the part of regular expressions that topic patterns are made of.
//!
//! Literals, `.`, classes, `\d \w \s` and their opposites, groups, `|`, `* + ?`. Matching walks all alternatives at
//! once, so it takes time in the length of name times pattern, for any pattern.

use crate::topic::TopicName;

/// A pattern that the whole of `tenant/namespace/topic` has to match, without the suffix of a partition.
#[derive(Debug, Clone)]
pub(crate) struct TopicPattern {
    program: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    One(Set),
    /// Goes on at both.
    Split(usize, usize),
    Jump(usize),
    Match,
}

/// Which characters a step takes.
#[derive(Debug, Clone)]
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    fn takes(&self, found: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&found)) != self.negated
    }

    fn one(only: char) -> Self {
        Self { negated: false, ranges: vec![(only, only)] }
    }
}

impl TopicPattern {
    /// Compiles a pattern; a leading `persistent://` is cut off.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text.split_once("://") {
            Some(("persistent" | "non-persistent", rest)) => rest,
            Some((domain, _)) => return Err(format!("Invalid domain in pattern: {domain}")),
            None => text,
        };
        let text = text.strip_prefix('^').unwrap_or(text);
        let text = text.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(text);
        let mut parser = Parser { rest: text.chars().peekable(), depth: 0 };
        let mut program = parser.alternatives()?;
        if parser.rest.next().is_some() {
            return Err("Unmatched closing ')'".to_owned());
        }
        program.push(Step::Match);
        Ok(Self { program })
    }

    pub(crate) fn matches(&self, name: &TopicName) -> bool {
        let base = name.base();
        self.matches_text(&format!("{}/{}", base.namespace(), base.local_name()))
    }

    fn matches_text(&self, text: &str) -> bool {
        let mut at = vec![false; self.program.len()];
        self.follow(0, &mut at);
        for found in text.chars() {
            let mut next = vec![false; self.program.len()];
            for (index, step) in self.program.iter().enumerate() {
                if let Step::One(set) = step {
                    if at[index] && set.takes(found) {
                        self.follow(index + 1, &mut next);
                    }
                }
            }
            at = next;
        }
        at.last().copied().unwrap_or(false)
    }

    fn follow(&self, start: usize, at: &mut [bool]) {
        let mut open = vec![start];
        while let Some(index) = open.pop() {
            if at.get(index).copied().unwrap_or(true) {
                continue;
            }
            at[index] = true;
            match self.program[index] {
                Step::Split(first, second) => open.extend([first, second]),
                Step::Jump(target) => open.push(target),
                Step::One(_) | Step::Match => {}
            }
        }
    }
}

/// Groups inside groups; more is refused.
const DEPTH_MAX: u32 = 20;

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    depth: u32,
}

/// Targets in a piece of a program count from its start; this moves them.
fn shifted(piece: Vec<Step>, by: usize) -> impl Iterator<Item = Step> {
    piece.into_iter().map(move |step| match step {
        Step::Split(first, second) => Step::Split(first + by, second + by),
        Step::Jump(target) => Step::Jump(target + by),
        other => other,
    })
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Result<Vec<Step>, String> {
        let mut program = self.sequence()?;
        while self.rest.next_if_eq(&'|').is_some() {
            let other = self.sequence()?;
            let (first, second) = (program.len(), other.len());
            let mut both = vec![Step::Split(1, first + 2)];
            both.extend(shifted(program, 1));
            both.push(Step::Jump(first + 2 + second));
            both.extend(shifted(other, first + 2));
            program = both;
        }
        Ok(program)
    }

    fn sequence(&mut self) -> Result<Vec<Step>, String> {
        let mut program = Vec::new();
        while let Some(next) = self.rest.peek().copied() {
            if matches!(next, '|' | ')') {
                break;
            }
            let atom = self.atom()?;
            let piece = self.repeated(atom)?;
            let at = program.len();
            program.extend(shifted(piece, at));
        }
        Ok(program)
    }

    fn repeated(&mut self, atom: Vec<Step>) -> Result<Vec<Step>, String> {
        let count = atom.len();
        let mut piece = Vec::with_capacity(count + 2);
        match self.rest.peek() {
            Some('*') => {
                piece.push(Step::Split(1, count + 2));
                piece.extend(shifted(atom, 1));
                piece.push(Step::Jump(0));
            }
            Some('+') => {
                piece.extend(atom);
                piece.push(Step::Split(0, count + 1));
            }
            Some('?') => {
                piece.push(Step::Split(1, count + 1));
                piece.extend(shifted(atom, 1));
            }
            Some('{') => return Err("counted repetition is not supported".to_owned()),
            _ => return Ok(atom),
        }
        self.rest.next();
        // Lazy and possessive forms take the same names.
        self.rest.next_if(|next| matches!(next, '?' | '+'));
        Ok(piece)
    }

    fn atom(&mut self) -> Result<Vec<Step>, String> {
        let set = match self.rest.next() {
            None => return Err("Unexpected end of pattern".to_owned()),
            Some('.') => Set { negated: true, ranges: vec![('\n', '\n')] },
            Some('\\') => self.escape()?,
            Some('[') => self.class()?,
            Some('(') => return self.group(),
            Some(dangling @ ('*' | '+' | '?')) => return Err(format!("Dangling meta character '{dangling}'")),
            Some(literal) => Set::one(literal),
        };
        Ok(vec![Step::One(set)])
    }

    fn group(&mut self) -> Result<Vec<Step>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("groups nest too deep".to_owned());
        }
        if self.rest.next_if_eq(&'?').is_some() && self.rest.next() != Some(':') {
            return Err("only plain and non-capturing groups are supported".to_owned());
        }
        let program = self.alternatives()?;
        if self.rest.next() != Some(')') {
            return Err("Unclosed group".to_owned());
        }
        self.depth -= 1;
        Ok(program)
    }

    fn escape(&mut self) -> Result<Set, String> {
        let word = vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
        let space = vec![('\t', '\r'), (' ', ' ')];
        let (negated, ranges) = match self.rest.next() {
            None => return Err("Unexpected end of pattern after '\\'".to_owned()),
            Some('d') => (false, vec![('0', '9')]),
            Some('D') => (true, vec![('0', '9')]),
            Some('w') => (false, word),
            Some('W') => (true, word),
            Some('s') => (false, space),
            Some('S') => (true, space),
            Some(other) if other.is_ascii_alphanumeric() => return Err(format!("escape \\{other} is not supported")),
            Some(literal) => (false, vec![(literal, literal)]),
        };
        Ok(Set { negated, ranges })
    }

    fn class(&mut self) -> Result<Set, String> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            let low = match self.rest.next() {
                None => return Err("Unclosed character class".to_owned()),
                Some(']') if !ranges.is_empty() => return Ok(Set { negated, ranges }),
                Some('\\') => {
                    let set = self.escape()?;
                    if set.negated {
                        return Err("a negated escape in a class is not supported".to_owned());
                    }
                    ranges.extend(set.ranges);
                    continue;
                }
                Some(low) => low,
            };
            if self.rest.next_if_eq(&'-').is_none() {
                ranges.push((low, low));
                continue;
            }
            match self.rest.next() {
                Some(']') => {
                    ranges.extend([(low, low), ('-', '-')]);
                    return Ok(Set { negated, ranges });
                }
                Some(high) if low <= high => ranges.push((low, high)),
                _ => return Err("Illegal character range".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        TopicPattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).matches_text(text)
    }

    #[test]
    fn patterns_match_the_whole_name() {
        for (pattern, text, expected) in [
            ("public/default/.*", "public/default/a", true),
            ("persistent://public/default/p1", "public/default/p1", true),
            ("a.*", "public/default/a", false),
            ("public/default/(a|b+)-[0-9]+", "public/default/bbb-42", true),
            ("public/default/(a|b+)-[0-9]+", "public/default/c-42", false),
            ("x/y/[^-a]?z", "x/y/z", true),
            ("x/y/[^-a]?z", "x/y/az", false),
            (r"x/y/\w+\.\d*", "x/y/ab_1.", true),
            ("x/y/(?:ab)*", "x/y/abab", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["(", ")", "[a", "*", "a{2}", "topic://a", "\\", "[z-a]"] {
            assert!(TopicPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nested_repetition_takes_linear_time() {
        assert!(!matches("(a*)*(a*)*(a*)*b", &"a".repeat(2_000)));
    }
}
