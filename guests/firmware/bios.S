// bios: the few services of a PC's BIOS that real-mode code cannot do without: text and keys
// through COM1, the memory map, the time of day in ticks, and the interrupts of timer and devices.
//
// It is for images that are entered in real mode and call the BIOS; docs/guest-abi.md says which.
// Loaded at 0xfe000, where it runs in segment 0xf000. minivmm fills in the interrupt table, whose
// entries are listed at `vectors`, what is at `entry_point`, and the BIOS data area.
//
// Sources: Ralf Brown's interrupt list; ACPI specification 6.5, section 15.1, for E820.

.code16

.set COM1, 0x3f8
.set LSR, COM1 + 5
.set DATA_READY, 1
.set THR_EMPTY, 0x20

.set PIC1, 0x20
.set PIC2, 0xa0
.set EOI, 0x20
.set PIT, 0x40
.set PIT_COMMAND, 0x43

.set RESET_CONTROL, 0xcf9

// In the BIOS data area, segment 0x40.
.set BDA, 0x40
.set MEMORY_KIB, 0x13
.set TICKS, 0x6c
.set MIDNIGHT, 0x70
.set TICKS_PER_DAY, 0x1800b0
// A key that was seen and not taken: its code, and whether there is one. The area is for whoever
// runs.
.set KEY, 0xf0

// Where the caller's flags are, once BP is pushed and holds SP.
.set FLAGS, 6
.set CF, 1
.set ZF, 0x40

.macro set_carry
    orb $CF, FLAGS(%bp)
.endm
.macro clear_carry
    andb $~CF, FLAGS(%bp)
.endm

.globl _start
_start:

// The interrupt table: a vector and its handler, until a vector of 0xffff.
vectors:
    .word 0x08, timer
    .word 0x09, device
    .word 0x0a, device
    .word 0x0b, device
    .word 0x0c, device
    .word 0x0d, device
    .word 0x0e, device
    .word 0x0f, device
    .word 0x10, video
    .word 0x11, equipment
    .word 0x12, memory_size
    .word 0x13, no_disk
    .word 0x15, system
    .word 0x16, keyboard
    .word 0x18, reboot
    .word 0x19, reboot
    .word 0x1a, time
    .word 0x70, second_device
    .word 0x71, second_device
    .word 0x72, second_device
    .word 0x73, second_device
    .word 0x74, second_device
    .word 0x75, second_device
    .word 0x76, second_device
    .word 0x77, second_device
    // The end, with what all other vectors get; then where the vCPU starts.
    .word 0xffff, nothing
    .word post

// Where the vCPU starts: what a BIOS has done when it gives the machine away. Changes AL.
post:
    // The PICs: edges, vectors 8 and 0x70, 8086 mode, and only the timer and the cascade let
    // through.
    mov $0x11, %al
    out %al, $PIC1
    out %al, $PIC2
    mov $0x08, %al
    out %al, $PIC1 + 1
    mov $0x70, %al
    out %al, $PIC2 + 1
    mov $0x04, %al
    out %al, $PIC1 + 1
    mov $0x02, %al
    out %al, $PIC2 + 1
    mov $0x01, %al
    out %al, $PIC1 + 1
    out %al, $PIC2 + 1
    mov $0xfa, %al
    out %al, $PIC1 + 1
    mov $0xff, %al
    out %al, $PIC2 + 1
    // The PIT: channel 0 as slow as it goes, a square wave.
    mov $0x36, %al
    out %al, $PIT_COMMAND
    xor %al, %al
    out %al, $PIT
    out %al, $PIT
    ljmp *%cs:entry_point

nothing:
    iret

// IRQ 0: 18.2 times a second.
timer:
    push %ax
    push %ds
    mov $BDA, %ax
    mov %ax, %ds
    incl TICKS
    cmpl $TICKS_PER_DAY, TICKS
    jb 1f
    movl $0, TICKS
    movb $1, MIDNIGHT
1:  pop %ds
    // The user's own handler.
    int $0x1c
    mov $EOI, %al
    out %al, $PIC1
    pop %ax
    iret

// IRQ 1 to 7, and 8 to 15, which nobody has taken.
device:
    push %ax
    mov $EOI, %al
    out %al, $PIC1
    pop %ax
    iret

second_device:
    push %ax
    mov $EOI, %al
    out %al, $PIC2
    out %al, $PIC1
    pop %ax
    iret

// Text goes to COM1, a character at a time; there is no screen to set a mode, cursor or colour of.
video:
    cmp $0x0e, %ah
    je teletype
    cmp $0x03, %ah
    je cursor
    cmp $0x0f, %ah
    je mode
    iret
teletype:
    push %ax
    push %dx
    mov %al, %ah
    mov $LSR, %dx
1:  in %dx, %al
    test $THR_EMPTY, %al
    jz 1b
    mov %ah, %al
    mov $COM1, %dx
    out %al, %dx
    pop %dx
    pop %ax
    iret
cursor:
    xor %dx, %dx
    mov $0x0607, %cx
    iret
mode:
    // 80 columns, mode 3, page 0.
    mov $0x5003, %ax
    xor %bh, %bh
    iret

equipment:
    // A serial port.
    mov $0x0200, %ax
    iret

memory_size:
    push %ds
    mov $BDA, %ax
    mov %ax, %ds
    mov MEMORY_KIB, %ax
    pop %ds
    iret

no_disk:
    push %bp
    mov %sp, %bp
    // Invalid function or parameter.
    mov $0x01, %ah
    set_carry
    pop %bp
    iret

system:
    push %bp
    mov %sp, %bp
    cmp $0xe820, %ax
    je map_entry
    cmp $0x88, %ah
    je above_one_mib
    cmp $0xe801, %ax
    je above_in_two
    cmp $0x24, %ah
    je a20
    // Function not supported.
    mov $0x86, %ah
    set_carry
    pop %bp
    iret

a20:
    // Always on; status and support are answered so.
    cmp $0x02, %al
    jne 1f
    mov $1, %al
1:  xor %bx, %bx
    cmp $0x03, %al
    jne 2f
    // By the keyboard controller.
    mov $1, %bx
2:  xor %ah, %ah
    clear_carry
    pop %bp
    iret

// EBX counts the entries; the last one leaves 0 there.
map_entry:
    cmp $0x534d4150, %edx
    jne 1f
    cmp $20, %ecx
    jb 1f
    movzwl %cs:memory_map, %eax
    cmp %eax, %ebx
    jae 1f
    push %ds
    push %si
    push %di
    push %cx
    push %cs
    pop %ds
    imul $20, %bx, %si
    add $memory_map + 2, %si
    mov $20, %cx
    cld
    rep movsb
    pop %cx
    pop %di
    pop %si
    pop %ds
    inc %ebx
    cmp %eax, %ebx
    jb 2f
    xor %ebx, %ebx
2:  mov %edx, %eax
    mov $20, %ecx
    clear_carry
    pop %bp
    iret
1:  mov $0x86, %ah
    set_carry
    pop %bp
    iret

// KiB above 1 MiB, at most 63 MiB.
above_one_mib:
    mov %cs:above_kib, %ax
    clear_carry
    pop %bp
    iret

// KiB between 1 and 16 MiB, and 64 KiB blocks above that.
above_in_two:
    mov %cs:to_16_kib, %ax
    mov %cs:above_64_kib, %bx
    mov %ax, %cx
    mov %bx, %dx
    clear_carry
    pop %bp
    iret

// Keys are what COM1 receives: their codes are characters, the scan code is that of none.
keyboard:
    sti
    push %bp
    mov %sp, %bp
    push %ds
    push $BDA
    pop %ds
    and $0xef, %ah
    jz take_key
    cmp $0x01, %ah
    je look_for_key
    cmp $0x02, %ah
    je shift_state
    pop %ds
    pop %bp
    iret
shift_state:
    xor %al, %al
    pop %ds
    pop %bp
    iret
take_key:
    call poll_key
    jnz 1f
    // The timer looks again.
    hlt
    jmp take_key
1:  movb $0, KEY + 1
    pop %ds
    pop %bp
    iret
look_for_key:
    orb $ZF, FLAGS(%bp)
    call poll_key
    jz 1f
    andb $~ZF, FLAGS(%bp)
1:  pop %ds
    pop %bp
    iret

// The key in AX, and ZF clear, if there is one.
poll_key:
    cmpb $0, KEY + 1
    jne 1f
    push %dx
    mov $LSR, %dx
    in %dx, %al
    test $DATA_READY, %al
    jz 2f
    mov $COM1, %dx
    in %dx, %al
    mov $1, %ah
    mov %ax, KEY
2:  pop %dx
1:  mov KEY, %ax
    test %ah, %ah
    ret

time:
    push %bp
    mov %sp, %bp
    test %ah, %ah
    jnz 1f
    push %ds
    push $BDA
    pop %ds
    mov TICKS, %dx
    mov TICKS + 2, %cx
    mov MIDNIGHT, %al
    movb $0, MIDNIGHT
    pop %ds
    clear_carry
    pop %bp
    iret
1:  set_carry
    pop %bp
    iret

reboot:
    mov $RESET_CONTROL, %dx
    mov $0x06, %al
    out %al, %dx
    cli
    hlt
    jmp reboot

// What minivmm fills in: where to go after `post`, offset and segment; the sizes for INT 15h, and
// the map as a count and its entries.
.org 0x800
entry_point:
    .word 0, 0
above_kib:
    .word 0
to_16_kib:
    .word 0
above_64_kib:
    .word 0
memory_map:
    .word 0
    .fill 32 * 20

.org 0x1ff0
    ljmp $0xf000, $reboot
.org 0x2000
