// The code of the storm guests: bytes that can be told apart however they are mixed.
//
// Byte number n of vCPU v is (v << 4) | (n & 15). The high half says who sent it; the low
// halves of one vCPU must count 0, 1, ... 15, 0, ...: so a byte that is lost, doubled or out
// of order shows, and together with the number of bytes so does a loss of any 16 in a row.
// It tells 16 vCPUs apart; vCPU 16 uses the numbers of vCPU 0 again.

#define STORM_BYTES 4096

// Sets ebx to the high half, ecx to the number of bytes and esi to the first number.
.macro storm_begin
    iterations STORM_BYTES
    mov     %edi, %ebx
    shl     $4, %ebx
    xor     %esi, %esi
.endm

// Sets al to the next byte.
.macro storm_byte
    mov     %esi, %eax
    and     $15, %al
    or      %bl, %al
    inc     %esi
.endm
