//go:build linux

package unwind

// Operations of DWARF expressions (DWARF 5, 7.7.1).
const (
	operationDeref      = 0x06
	operationConst1u    = 0x08
	operationAnd        = 0x1a
	operationPlus       = 0x22
	operationPlusUconst = 0x23
	operationShl        = 0x24
	operationGe         = 0x2a
	operationLit0       = 0x30
	operationLit31      = 0x4f
	operationBreg0      = 0x70
	operationBreg31     = 0x8f
)

// expression is one of those that rows can have: a register with offset, perhaps the word that this points to, perhaps with
// something added; or the one of the procedure linkage table.
type expression struct {
	known    bool
	register uint64
	offset   int64
	deref    bool
	added    int64
	plt      bool
	boundary int64 // of plt: the place in an entry from which on one more word is on the stack
}

// parseExpression does not know most expressions.
func parseExpression(data []byte, machine *architecture) expression {
	if boundary, ok := parsePLT(data, machine); ok {
		return expression{known: true, plt: true, boundary: boundary}
	}
	c := cursor{data: data}
	operation := c.uint8()
	if operation < operationBreg0 || operation > operationBreg31 {
		return expression{}
	}
	found := expression{known: true, register: uint64(operation - operationBreg0), offset: c.signed()}
	for c.more() {
		switch operation := c.uint8(); {
		case operation == operationDeref && !found.deref:
			found.deref = true
		case operation == operationPlusUconst:
			found.add(int64(c.unsigned()))
		case operation >= operationLit0 && operation <= operationLit31 && c.uint8() == operationPlus:
			found.add(int64(operation - operationLit0))
		case operation == operationConst1u:
			number := c.uint8()
			if c.uint8() != operationPlus {
				return expression{}
			}
			found.add(int64(number))
		default:
			return expression{}
		}
	}
	if c.failed {
		return expression{}
	}
	return found
}

func (e *expression) add(number int64) {
	if e.deref {
		e.added += number
		return
	}
	e.offset += number
}

// parsePLT knows the CFA in the lazy procedure linkage table, as linkers for amd64 describe it:
// rsp + 8 + ((rip & 15) >= boundary) << 3.
func parsePLT(data []byte, machine *architecture) (boundary int64, ok bool) {
	const returnAddress, word, threeBits = 16, 8, 3
	if machine.linkRegister || len(data) != 11 || data[6] < operationLit0 || data[6] > operationLit0+15 {
		return 0, false
	}
	return int64(data[6] - operationLit0), string(data) == string([]byte{
		operationBreg0 + byte(machine.stackPointer), word, operationBreg0 + returnAddress, 0, operationLit0 + 15,
		operationAnd, data[6], operationGe, operationLit0 + threeBits, operationShl, operationPlus,
	})
}
