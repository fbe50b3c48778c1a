// uart.c: COM1 by interrupt (PC16550D datasheet): its line through the IOAPIC, each of its
// conditions, transmission in bursts, and reception of what the user types.

#include "pc.h"

#define ISA_LINE 4u

enum {
    DATA = 0x3f8,                   // RBR, THR; with DLAB the divisor's low byte
    IER = 0x3f9,                    // with DLAB the divisor's high byte
    IIR = 0x3fa,                    // FCR when written
    LCR = 0x3fb,
    MCR = 0x3fc,
    LSR = 0x3fd,
    MSR = 0x3fe
};

enum {
    IER_RECEIVED = 1,
    IER_THRE = 2,
    IER_LINE = 4,
    IER_MODEM = 8,
    IIR_ID = 0x0f,
    ID_MODEM = 0x0,
    ID_NONE = 0x1,
    ID_THRE = 0x2,
    ID_RECEIVED = 0x4,
    ID_LINE = 0x6,
    ID_TIME_OUT = 0xc,
    FCR_ENABLE = 1,
    FCR_CLEAR = 6,                  // both FIFOs
    FCR_TRIGGER_1 = 0x00,
    FCR_TRIGGER_8 = 0x80,
    FCR_TRIGGER_14 = 0xc0,
    LCR_8N1 = 0x03,
    LCR_DLAB = 0x80,
    MCR_DTR = 1,
    MCR_RTS = 2,
    MCR_OUT2 = 8,                   // on a PC: lets the interrupt out
    MCR_LOOP = 16,
    LSR_DATA = 1,
    LSR_THRE = 0x20
};

#define FIFO 16u
#define DEFAULT_BYTES 256u
#define RAISES 3u

// MPS INTI flags (ACPI 6.5, section 5.2.12.5).
#define LEVEL_ACTIVE_HIGH 0xd

// What the handler saw, by id.
static volatile uint32_t seen[16];

// What it sends on THRE, and what is left of it.
static const char *volatile next_byte;
static volatile uint32_t bytes_left;

// What it has received.
static uint8_t line[256];
static volatile uint32_t received;

static void send_burst(void) {
    uint32_t burst = bytes_left < FIFO ? bytes_left : FIFO;
    bytes_left -= burst;
    while (burst--)
        out8(DATA, (uint8_t)*next_byte++);
}

static void receive(void) {
    while (in8(LSR) & LSR_DATA) {
        uint8_t byte = in8(DATA);
        if (received < sizeof(line))
            line[received] = byte;
        received++;
    }
}

// One condition an interrupt: the next one has to raise the line anew.
static void handle(struct cpu *cpu, uint32_t vector) {
    (void)cpu, (void)vector;
    uint8_t id = in8(IIR) & IIR_ID;
    seen[id]++;
    switch (id) {
    case ID_THRE:
        send_burst();
        break;
    case ID_RECEIVED:
    case ID_TIME_OUT:
        receive();
        break;
    case ID_LINE:
        in8(LSR);
        break;
    case ID_MODEM:
        in8(MSR);
        break;
    default:
        break;
    }
    end_of_interrupt();
}

static void begin(uint8_t fcr) {
    out8(IER, 0);
    out8(LCR, LCR_DLAB);
    out8(DATA, 1);
    out8(IER, 0);
    out8(LCR, LCR_8N1);
    out8(IIR, (uint8_t)(FCR_ENABLE | fcr));
    out8(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
    in8(LSR);
    in8(MSR);
    in8(IIR);
    received = 0;
    set_handler(VECTOR_UART, handle);
    io_apic_route(platform.isa_gsi[ISA_LINE], platform.isa_flags[ISA_LINE], cpus[0]->apic_id,
                  DELIVER_FIXED | VECTOR_UART);
}

static void end(void) {
    out8(IER, 0);
    out8(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
    out8(IIR, FCR_ENABLE);
    io_apic_mask(platform.isa_gsi[ISA_LINE]);
}

static void wait_empty(void) {
    while (!(in8(LSR) & LSR_THRE))
        ;
}

// An IER that lets a condition out which is there already raises the line, each time.
static void raise_by_ier(void) {
    for (uint32_t i = 0; i < RAISES; i++) {
        uint32_t before = seen[ID_THRE];
        wait_empty();
        out8(IER, IER_THRE);
        wait_for(seen[ID_THRE] != before);
        check_equal(seen[ID_THRE], before + 1);
        // It was taken back by reading IIR.
        check_equal(in8(IIR) & IIR_ID, ID_NONE);
        out8(IER, 0);
    }
}

// Loss and order show in it.
const char *alphabet(uint32_t size) {
    char *text = allocate(size + 1);
    for (uint32_t i = 0; i < size; i++)
        text[i] = (char)('a' + i % 26);
    return text;
}

// Sends `size` bytes in bursts, each on the interrupt that the FIFO is empty.
static void send_by_interrupt(const char *text, uint32_t size) {
    uint32_t until = seen[ID_THRE] + (size + FIFO - 1) / FIFO + 1;
    next_byte = text;
    bytes_left = size;
    out8(IER, IER_THRE);
    wait_for(seen[ID_THRE] >= until);
    out8(IER, 0);
    check_equal(bytes_left, 0);
}

void uart_send_by_polling(const char *text, uint32_t size) {
    for (uint32_t sent = 0; sent < size;) {
        wait_empty();
        for (uint32_t end = sent + FIFO < size ? sent + FIFO : size; sent < end; sent++)
            out8(DATA, (uint8_t)text[sent]);
    }
}

void uart_send_by_interrupt(const char *text, uint32_t size) {
    begin(FCR_TRIGGER_1);
    send_by_interrupt(text, size);
    end();
}

// Puts bytes in by loopback, with all interrupts off.
static void loop_back(uint32_t bytes) {
    out8(MCR, MCR_LOOP | MCR_OUT2);
    for (uint32_t i = 0; i < bytes; i++) {
        // Not after the last one: to read LSR is to take its errors.
        wait_empty();
        out8(DATA, (uint8_t)i);
    }
}

// Lets interrupts out until one with this id comes, which takes this many bytes.
static void let_out(uint8_t ier, uint8_t id, uint32_t bytes) {
    uint32_t before = seen[id];
    received = 0;
    out8(IER, ier);
    wait_for(seen[id] != before);
    out8(IER, 0);
    if (bytes)
        check_equal(received, bytes);
    for (uint32_t i = 0; i < bytes; i++)
        check_equal(line[i], i);
}

static void receive_conditions(void) {
    begin(FCR_CLEAR | FCR_TRIGGER_14);
    loop_back(14);
    let_out(IER_RECEIVED, ID_RECEIVED, 14);
    // Fewer than the trigger level: a time-out tells of them.
    loop_back(3);
    let_out(IER_RECEIVED, ID_TIME_OUT, 3);
    // One more than there is room for: the line status goes first. The line stays high after it,
    // so that the data need another edge.
    loop_back(FIFO + 1);
    let_out(IER_LINE | IER_RECEIVED, ID_LINE, 0);
    let_out(IER_RECEIVED, ID_RECEIVED, FIFO);
    // In loopback, RTS and DTR are the modem's lines.
    out8(IER, 0);
    out8(MCR, MCR_LOOP | MCR_OUT2);
    in8(MSR);
    out8(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
    let_out(IER_MODEM, ID_MODEM, 0);
}

// How often by_level() is to leave the condition as it is.
static volatile uint32_t times_left;

static void handle_late(struct cpu *cpu, uint32_t vector) {
    if (times_left) {
        times_left--;
        end_of_interrupt();
    } else {
        handle(cpu, vector);
    }
}

// A level-triggered line interrupts again after each end of interrupt, until it is low. One more
// may be on its way then, which finds nothing; but it must come to an end.
static void by_level(void) {
    uint32_t before = seen[ID_NONE];
    begin(FCR_CLEAR);
    io_apic_route(platform.isa_gsi[ISA_LINE], LEVEL_ACTIVE_HIGH, cpus[0]->apic_id,
                  DELIVER_FIXED | VECTOR_UART);
    loop_back(1);
    set_handler(VECTOR_UART, handle_late);
    times_left = RAISES;
    out8(IER, IER_RECEIVED);
    wait_for(received);
    check_equal(times_left, 0);
    check_equal(received, 1);
    if (seen[ID_NONE] - before > 1)
        fail("%u interrupts of a line that is low", seen[ID_NONE] - before);
    out8(IER, 0);
}

void test_uart(void) {
    uint32_t size = parameter("bytes=", DEFAULT_BYTES);
    const char *text = alphabet(size);
    begin(FCR_CLEAR | FCR_TRIGGER_1);
    raise_by_ier();
    print("uart: ");
    wait_empty();
    uart_send_by_interrupt(text, size);
    print("\n");
    receive_conditions();
    end();
    by_level();
    end();
    print("uart: ok, %u bytes sent in bursts\n", size);
}

// Reads a line from outside.
void test_uart_rx(void) {
    begin(FCR_TRIGGER_8);
    out8(IER, IER_RECEIVED);
    wait_for(received && (received > sizeof(line) || line[received - 1] == '\n'));
    end();
    if (received > sizeof(line))
        fail("a line of more than %lu bytes", sizeof(line));
    line[received - 1] = 0;
    print("uart-rx: ok, %u bytes by %u interrupts: \"%s\"\n", received,
          seen[ID_RECEIVED] + seen[ID_TIME_OUT], (const char *)line);
}
