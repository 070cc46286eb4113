//go:build !linux

package devstack

import "syscall"

// DieWithParent does nothing here: only Linux has a parent-death signal. The next Start stops the servers that a killed run left.
func DieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
