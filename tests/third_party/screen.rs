//! A terminal's screen, as far as memtest86+ needs one: text goes where the cursor was put
//! (ECMA-48, CUP), the screen can be erased (ED), and colours are of no interest.

const ROWS: usize = 25;
const COLUMNS: usize = 80;

/// The characters on the screen.
#[derive(Clone)]
pub struct Screen {
    cells: Vec<[char; COLUMNS]>,
    row: usize,
    column: usize,
}

impl Screen {
    /// What is on it after this has been sent. Of a sequence that is cut off nothing is shown.
    pub fn after(sent: &[u8]) -> Self {
        let mut screen = Self { cells: vec![[' '; COLUMNS]; ROWS], row: 0, column: 0 };
        let mut rest = sent.iter().copied();
        while let Some(byte) = rest.next() {
            match byte {
                b'\x1b' => screen.control(&mut rest),
                b'\r' => screen.column = 0,
                b'\n' => screen.row += 1,
                b' '..=b'~' => screen.put(char::from(byte)),
                _ => {}
            }
        }
        screen
    }

    /// A row from 1 on, as it is counted on the wire.
    pub fn row(&self, row: usize) -> String {
        self.cells[row - 1].iter().collect()
    }

    fn put(&mut self, character: char) {
        if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
            *cell = character;
        }
        self.column += 1;
    }

    /// CSI, its parameters and its final byte.
    fn control(&mut self, rest: &mut impl Iterator<Item = u8>) {
        if rest.next() != Some(b'[') {
            return;
        }
        let mut parameters = String::new();
        for byte in rest {
            if !(b'@'..=b'~').contains(&byte) {
                parameters.push(char::from(byte));
                continue;
            }
            let mut numbers = parameters.split(';').map(|number| number.parse().unwrap_or(1));
            let mut next = || numbers.next().unwrap_or(1_usize).max(1) - 1;
            match byte {
                b'H' => (self.row, self.column) = (next(), next()),
                b'J' => self.cells.fill([' '; COLUMNS]),
                _ => {}
            }
            return;
        }
    }
}

#[test]
fn text_goes_where_the_cursor_is_put() {
    let screen = Screen::after(b"\x1b[2;3Hab\x1b[7mc\x1b[0m\r\nd\x1b[1;79Hefg\x1b[9");
    assert_eq!(screen.row(2).trim_end(), "  abc");
    assert_eq!(screen.row(3).trim_end(), "d");
    assert_eq!(screen.row(1).trim_start(), "ef");
    assert_eq!(Screen::after(b"text\x1b[2J").row(1).trim(), "");
}
