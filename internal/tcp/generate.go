package tcp

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I../../bpf/include" -go-package tcp -type flow -type counters -type owner -type flow_kind -type flow_role -type flow_flags -type loss_reason -type census_count bpf ../../bpf/tcp.bpf.c
