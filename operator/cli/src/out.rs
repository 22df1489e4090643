//! Styled text: roles instead of colours, marks beside them, and lines that know their width.
//!
//! A role is never the only carrier of meaning: every one has a mark or a word next to it. Text that comes from
//! the cluster is cleaned of control characters here, so that no pod message can move the cursor.

use std::fmt::Write as _;

/// What a piece of text stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Ordinary text.
    #[default]
    Plain,
    /// As it should be.
    Ok,
    /// Under way.
    Running,
    /// Somebody should look.
    Attention,
    /// It failed.
    Bad,
    /// Less important.
    Dim,
    /// A headline.
    Strong,
}

impl Role {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ok => "32",
            Self::Running => "34",
            Self::Attention => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Strong => "1",
        }
    }

    /// The mark that goes with the role.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Ok => "[+]",
            Self::Running => "[>]",
            Self::Attention => "[!]",
            Self::Bad => "[x]",
            Self::Plain | Self::Dim | Self::Strong => "[ ]",
        }
    }
}

/// A line of styled text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Role, String)>);

impl Line {
    /// A line of ordinary text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self::default().plain(text)
    }

    /// Adds ordinary text.
    pub fn plain(self, text: impl AsRef<str>) -> Self {
        self.add(Role::Plain, text)
    }

    /// Adds text with a role.
    pub fn add(mut self, role: Role, text: impl AsRef<str>) -> Self {
        let text = clean(text.as_ref());
        if !text.is_empty() {
            self.0.push((role, text));
        }
        self
    }

    /// Adds a mark with its colour.
    pub fn mark(self, role: Role) -> Self {
        let text = role.mark();
        self.add(role, text)
    }

    /// Adds another line's text.
    pub fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Fills up with spaces.
    pub fn pad(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.plain(" ".repeat(missing))
    }

    /// Characters it takes on the screen.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Puts `right` at the right edge, if there is room for it; else leaves it out.
    pub fn right(self, right: Self, width: usize) -> Self {
        let gap = 2;
        if right.0.is_empty() || self.width() + gap + right.width() > width {
            return self;
        }
        let at = width - right.width();
        self.pad(at).join(right)
    }

    /// Cuts it off at `width`, with a mark of the cut.
    pub fn clip(self, width: usize) -> Self {
        if self.width() <= width || width == 0 {
            return self;
        }
        let mut left = width - 1;
        let mut kept = Vec::new();
        for (role, text) in self.0 {
            let part: String = text.chars().take(left).collect();
            left -= part.chars().count();
            kept.push((role, part));
            if left == 0 {
                break;
            }
        }
        kept.push((Role::Dim, "~".to_owned()));
        Self(kept)
    }

    /// As text, with or without colours.
    pub fn paint(&self, colour: bool) -> String {
        let mut out = String::new();
        for (role, text) in &self.0 {
            if colour && !role.code().is_empty() {
                let _ = write!(out, "\x1b[{}m{text}\x1b[0m", role.code());
            } else {
                out.push_str(text);
            }
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// Text of a fixed label, words wrapped under each other.
pub fn labelled(label: &str, role: Role, text: &str, width: usize) -> Vec<Line> {
    let words = clean(text);
    let pieces: Vec<Line> = words.split_whitespace().map(|word| Line::default().add(role, word)).collect();
    flow(label, pieces, " ", width)
}

/// Width of the column of labels.
pub const LABEL: usize = 9;

/// Pieces behind a label, wrapped between pieces.
pub fn flow(label: &str, pieces: Vec<Line>, gap: &str, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = Line::default().add(Role::Dim, label).pad(LABEL);
    let mut empty = true;
    for piece in pieces {
        if !empty && line.width() + gap.len() + piece.width() > width {
            lines.push(std::mem::take(&mut line));
            line = Line::default().pad(LABEL);
            empty = true;
        }
        if !empty {
            line = line.plain(gap);
        }
        line = line.join(piece);
        empty = false;
    }
    lines.push(line);
    lines
}

/// A table: the first row is the header. No lines are drawn, as kubectl does it.
pub fn table(rows: Vec<Vec<Line>>) -> Vec<Line> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(Line::width).max().unwrap_or(0))
        .collect();
    let gap = 3;
    rows.into_iter()
        .map(|row| {
            let cells = row.into_iter().zip(&widths);
            cells.fold(Line::default(), |line, (cell, width)| line.join(cell.pad(width + gap)))
        })
        .collect()
}

/// Text as people and programs may safely see it on a terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || hides(c) { ' ' } else { c }).collect()
}

/// Line and paragraph separators, which end a line for some readers; marks of direction, of byte order, without width, and what
/// is no character, which hide text from people or end the reading.
pub fn hides(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let line = Line::new("pod says \x1b[2J\nboo\u{9b}31m\u{2028}\u{202e}!");
        assert_eq!(line.paint(true), "pod says  [2J boo 31m  !");
    }

    #[test]
    fn a_clipped_line_has_its_width() {
        let line = Line::new("0123").add(Role::Bad, "456789").clip(7);
        assert_eq!(line.paint(false), "012345~");
        assert_eq!(line.width(), 7);
    }

    #[test]
    fn words_wrap_under_the_label() {
        let lines = labelled("now", Role::Plain, "one two three four", 18);
        let text: Vec<String> = lines.iter().map(|line| line.paint(false)).collect();
        assert_eq!(text, ["now      one two", "         three", "         four"]);
    }

    #[test]
    fn a_right_part_without_room_is_left_out() {
        let left = Line::new("left");
        assert_eq!(left.clone().right(Line::new("right"), 12).paint(false), "left   right");
        assert_eq!(left.right(Line::new("right"), 10).paint(false), "left");
    }

    #[test]
    fn colours_stand_around_the_text_only() {
        let line = Line::default().mark(Role::Ok).plain(" fine");
        assert_eq!(line.paint(true), "\x1b[32m[+]\x1b[0m fine");
        assert_eq!(line.paint(false), "[+] fine");
    }
}
