package http

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I../../bpf/include" -go-package http -type message -type message_head -type message_kind -type message_direction -type message_flag -type loss_reason -type tls_event -type tls_cookie -type go_process -type go_table_event -type go_stream_event -type go_stream_cookie bpf ../../bpf/http.bpf.c
