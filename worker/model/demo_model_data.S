/* The demo model's file as read-only data. MILLRACE_DEMO_MODEL_FILE is its path, from CMake. */
    .section .rodata.millrace_demo_model, "a"
    .balign 4096
    .globl millrace_demo_model_begin
    .type millrace_demo_model_begin, @object
millrace_demo_model_begin:
    .incbin MILLRACE_DEMO_MODEL_FILE
    .globl millrace_demo_model_end
    .type millrace_demo_model_end, @object
millrace_demo_model_end:
    .byte 0
    .section .note.GNU-stack, "", @progbits
