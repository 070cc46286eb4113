package devstack

import "syscall"

// DieWithParent makes the kernel send sig to a child when the thread that forked it ends, which it also does by kill -9 of us.
// Fork from a goroutine that stays locked to its OS thread. Elsewhere than on Linux it does nothing.
func DieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
