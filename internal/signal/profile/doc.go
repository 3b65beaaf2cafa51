// Package profile builds messages of pprofile out of samples.
//
// A [Builder] takes samples one by one and merges those that are equal; [Builder.Build] gives the message. The probe says
// what it saw in its own terms: a [Sample] names its stack by a key of the probe's, and the builder asks for the stack's
// locations ([Stacks]) only when a message has not got them yet. A hot stack costs a map lookup or two per sample, however
// deep it is.
//
//	builder := profile.New(stacks, describeScope)
//	resource := builder.Resource(workload)
//	cpu, err := builder.Profile(resource, profile.Description{
//		Type: profile.CPU, Period: int64(time.Second) / hertz, Start: start, Duration: interval,
//	})
//	err = builder.Add(cpu, profile.Sample[Key]{Stack: key, Value: count})
//	profiles := builder.Build()
//
// # The message
//
// What comes out follows opentelemetry/proto/profiles/v1development and the data model behind it, for any input:
//
//   - One dictionary a message. Entry 0 of each table is the zero value, every other entry is different from all others,
//     and something refers to it. Tables are in the order in which the samples first needed their entries, so equal input
//     makes equal messages.
//   - A resource is there once, with the profiles that have samples; a profile has one type of sample, one shape, and no two
//     samples with the same stack, attributes and link.
//   - Strings are valid UTF-8: bytes that are not are replaced by U+FFFD, since protobuf refuses a whole message for one of
//     them.
//   - What is not known is left out: a line without a function, an address range that nobody knows.
//
// A sample that cannot be told truthfully is refused with an error, and nothing of it is in the message; its sender counts
// it. Package profilecheck has a checker of all of this for tests.
//
// # Attributes without a convention
//
// Most names are of the semantic conventions. These are not, as there is none:
//
//   - profile.stack.incomplete on a sample: the rest of its stack, at the side of the root, is not known; the value is the
//     reason. A sample without it has its whole stack.
//   - profile.off_cpu.reason on a sample of type off_cpu: why the thread did not run; "wait" when it waited for something,
//     "preempted" when it could have run and another thread did.
package profile
