// print.c: text to COM1, and the end of a test that fails.

#include "pc.h"

#include <stdarg.h>

#define COM1_DATA 0x3f8
#define COM1_MCR 0x3fc
#define COM1_LSR 0x3fd
#define LSR_THRE 0x20
#define MCR_DTR_RTS 3

#define EXIT_PORT 0xf4

const char *test_name = "pc";
uint8_t exit_value = 1;

static void print_char(char c) {
    while (!(in8(COM1_LSR) & LSR_THRE))
        ;
    out8(COM1_DATA, (uint8_t)c);
}

static void print_text(const char *text) {
    while (*text)
        print_char(*text++);
}

static void print_number(uint64_t value, unsigned base) {
    char digits[20];
    unsigned length = 0;
    do
        digits[length++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (length)
        print_char(digits[--length]);
}

static void print_arguments(const char *format, va_list arguments) {
    for (; *format; format++) {
        if (*format != '%') {
            print_char(*format);
            continue;
        }
        bool is_long = *++format == 'l';
        format += is_long;
        switch (*format) {
        case 's':
            print_text(va_arg(arguments, const char *));
            break;
        case 'c':
            print_char((char)va_arg(arguments, int));
            break;
        case 'u':
        case 'x': {
            uint64_t value =
                is_long ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t);
            print_number(value, *format == 'x' ? 16 : 10);
            break;
        }
        default:
            print_char(*format);
        }
    }
}

void print(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_arguments(format, arguments);
    va_end(arguments);
}

_Noreturn void fail(const char *format, ...) {
    static _Atomic uint32_t failed;
    va_list arguments;
    interrupts_off();
    // The first one tells.
    while (atomic_exchange(&failed, 1))
        halt();
    // Out of loopback, if a test has it in there.
    out8(COM1_MCR, MCR_DTR_RTS);
    print("\n%s: FAILED: ", test_name);
    va_start(arguments, format);
    print_arguments(format, arguments);
    va_end(arguments);
    print("\n");
    out8(EXIT_PORT, exit_value);
    for (;;)
        halt();
}
