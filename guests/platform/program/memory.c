// memory.c: bytes, and memory to have for good.

#include "pc.h"

// String instructions are one instruction where others are emulated one by one.
void *memcpy(void *to, const void *from, size_t size) {
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return result;
}

void *memset(void *to, int byte, size_t size) {
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return result;
}

int memcmp(const void *left, const void *right, size_t size) {
    const uint8_t *l = left, *r = right;
    for (; size; size--, l++, r++)
        if (*l != *r)
            return *l - *r;
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

bool equal(const char *left, const char *right) {
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

void *allocate(size_t size) {
    static struct range left;
    if (!left.end)
        left = free_ram();
    uint64_t start = (left.start + 63) & ~UINT64_C(63);
    if (start > left.end || size > left.end - start)
        fail("no room for %lu bytes: RAM is free from 0x%lx to 0x%lx", size, left.start, left.end);
    left.start = start + size;
    uint64_t *words = (uint64_t *)start, count = (size + 7) / 8;
    __asm__ volatile("rep stosq" : "+D"(words), "+c"(count) : "a"(UINT64_C(0)) : "memory");
    return (void *)start;
}

bool sums_to_zero(const void *bytes, size_t size) {
    const uint8_t *byte = bytes;
    uint8_t sum = 0;
    while (size--)
        sum += *byte++;
    return sum == 0;
}

const void *find_signature(const char *signature, uint64_t start, uint64_t end) {
    size_t length = strlen(signature);
    for (uint64_t address = start; address + length <= end; address += 16) {
        // Most places differ at once.
        if (*(const char *)address == *signature
            && memcmp((const void *)address, signature, length) == 0)
            return (const void *)address;
    }
    return NULL;
}
