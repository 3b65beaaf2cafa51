//go:build linux

package workload

import "time"

// processID is a Key as /proc can show it. Two processes with one pid never start within one tick: all other pids would
// have to be used in between.
type processID struct {
	pid        uint32
	startTicks uint64
}

// process is what the table keeps of a process. Everything that it points to is immutable, so that a child can share it.
type process struct {
	workload *Workload // what Lookup answers; nil: not looked at since it last executed a program
	readAt   time.Time

	executed    *execution // the last exec event of the running program, which for a mere fork was its parent's
	inherited   *Workload  // an earlier reading: of the parent at the fork, or of the process itself before it executed
	sameProgram bool       // inherited describes the program that still runs

	parent     Key
	generation uint64 // counts the programs that it has executed
	exited     bool
}

// execution is what an exec event tells.
type execution struct {
	comm           string
	executablePath string // empty when the program was named relative to a directory
	executableName string
	command        string
	commandLine    string
	environment    environment // as far as the event carries it
	cgroupID       uint64
}

// execute takes the event that the process runs another program now.
func (p *process) execute(executed *execution, parent Key) {
	if p.workload != nil {
		p.inherited = p.workload
	}
	p.workload = nil
	p.executed = executed
	p.sameProgram = false
	p.parent = parent
	p.generation++
	p.exited = false
}

// fork takes the event that the process was forked. The parent is nil when the table does not know it.
func (p *process) fork(parent *process, parentKey Key) {
	p.parent = parentKey
	if parent == nil || p.generation > 0 || p.inherited != nil {
		return // Events of two CPUs may arrive out of order: what it executed itself counts.
	}
	p.executed = parent.executed
	if parent.workload != nil {
		p.inherited, p.sameProgram = parent.workload, true
	} else {
		p.inherited, p.sameProgram = parent.inherited, parent.sameProgram
	}
}

// unknown tells whether nothing but hints can describe the process.
func (p *process) unknown() bool {
	return p.workload == nil && p.executed == nil && !(p.inherited != nil && p.sameProgram)
}

// complement fills in what a reading of the living process lacks.
func (p *process) complement(view *processView) {
	same := p.inherited
	if !p.sameProgram {
		same = nil
	}
	if view.executablePath == "" && !view.kernelThread {
		switch {
		case p.executed != nil:
			view.executablePath, view.executableName = p.executed.executablePath, p.executed.executableName
		case same != nil:
			view.executablePath, view.executableName = same.ExecutablePath, same.ExecutableName
		}
	}
	// A program that writes its title over its environment (nginx, postgres) hides what was there before.
	if view.environment.empty() && p.executed != nil {
		view.environment = p.executed.environment
	}
	if view.environment.empty() && same != nil && same.ExecutablePath == view.executablePath {
		view.environment = same.environment
	}
}

// epitaph describes a process that has gone by what is left: view is what /proc shows of a zombie (nothing of a process
// that was reaped), cgroupOf finds the cgroup that has an id.
func (p *process) epitaph(view processView, hint Hint, cgroupOf func(id uint64) cgroupIdentity) facts {
	var last facts
	switch {
	case p.inherited != nil && p.sameProgram:
		last = p.inherited.facts()
	case p.executed != nil:
		last = facts{
			comm:           p.executed.comm,
			executablePath: p.executed.executablePath,
			executableName: p.executed.executableName,
			command:        p.executed.command,
			commandLine:    p.executed.commandLine,
			environment:    p.executed.environment,
		}
	}
	last.complete = false
	for _, comm := range []string{view.comm, hint.Comm} {
		if comm != "" {
			last.comm = comm
			break
		}
	}
	last.kernelThread = last.kernelThread || hint.KernelThread

	inherited := last.cgroup
	candidates := []cgroupIdentity{view.cgroup, cgroupOf(hint.CgroupID)}
	if p.executed != nil {
		candidates = append(candidates, cgroupOf(p.executed.cgroupID))
	}
	// Where the version 2 hierarchy is not used, the parent's container is the best guess, its other cgroups are none.
	if p.inherited != nil && (p.sameProgram || p.inherited.ContainerID != "") {
		inherited = p.inherited.cgroup()
	}
	last.cgroup = firstCgroup(append(candidates, inherited))

	// An environment is passed on from program to program, but seldom into a container.
	if p.inherited != nil && last.environment.empty() && p.inherited.ContainerID == last.cgroup.containerID {
		last.environment = p.inherited.environment
	}
	return last
}

// firstCgroup prefers the first path that says more than that the hierarchy exists.
func firstCgroup(candidates []cgroupIdentity) cgroupIdentity {
	var root cgroupIdentity
	for _, candidate := range candidates {
		switch candidate.path {
		case "":
		case "/":
			root = candidate
		default:
			return candidate
		}
	}
	return root
}
