//! The queue on either side of the UART: a fixed array, never the heap. What is in it, and
//! what a full one means, the UART decides.

/// How many characters each FIFO of the chip holds (datasheet, "FIFO control register").
const FIFO_DEPTH: usize = 16;

/// A first-in first-out queue of up to 1 or 16 characters: the chip's two modes.
#[derive(Debug, Clone)]
pub(super) struct Fifo<T> {
    slots: [T; FIFO_DEPTH],
    /// Index of the oldest character.
    head: usize,
    len: usize,
    depth: usize,
}

impl<T: Copy + Default> Fifo<T> {
    /// An empty queue as the chip has it with its FIFOs on (16 deep) or off (1 deep).
    pub(super) fn new(fifos_on: bool) -> Self {
        Self {
            slots: [T::default(); FIFO_DEPTH],
            head: 0,
            len: 0,
            depth: if fifos_on { FIFO_DEPTH } else { 1 },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more characters fit.
    pub(super) fn room(&self) -> usize {
        self.depth - self.len
    }

    /// Appends a character; false, and nothing changes, if the queue is full.
    #[must_use]
    pub(super) fn push(&mut self, item: T) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.slots[(self.head + self.len) % FIFO_DEPTH] = item;
        self.len += 1;
        true
    }

    /// Removes the oldest character.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.front().copied()?;
        self.head = (self.head + 1) % FIFO_DEPTH;
        self.len -= 1;
        Some(item)
    }

    /// The oldest character.
    pub(super) fn front(&self) -> Option<&T> {
        self.iter().next()
    }

    /// The oldest character, to be changed in place.
    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        (self.len > 0).then(|| &mut self.slots[self.head])
    }

    /// All characters, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).map(|i| &self.slots[(self.head + i) % FIFO_DEPTH])
    }
}
