package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// followTimeout bounds how long a replica may take, beyond its apply delay, to replay what it has and then to stream again. Past
// it the replica is rebuilt.
const followTimeout = 30 * time.Second

// serverConf is the configuration of the primary and the replicas. Other settings have PostgreSQL's defaults: fsync and
// synchronous_commit are on. A replica that is away for longer than 1 GB of WAL is rebuilt.
const serverConf = `# written by ordergate at every start; ALTER SYSTEM overrides it
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = ''
max_connections = 200
max_wal_size = '512MB'
max_slot_wal_keep_size = '1GB'
timezone = 'UTC'
log_line_prefix = '%%m [%%p] '
`

const replicaConf = `primary_conninfo = 'host=127.0.0.1 port=%d user=ordergate password=%s application_name=%s'
primary_slot_name = '%s'
recovery_min_apply_delay = '%dms'
wal_retrieve_retry_interval = '500ms'
wal_receiver_timeout = '10s'
`

// startPrimary makes the primary at the first start and recovers it after a crash. It makes the database ordergate if it is missing
// and drops the slots of replicas that are not configured.
func (s *Stack) startPrimary(ctx context.Context) (*child, error) {
	if !exists(s.path("primary")) {
		s.cfg.Progress("making the primary database, once")
		if err := s.initdb(); err != nil {
			return nil, err
		}
	}
	c, err := s.postgres("primary", fmt.Sprintf(serverConf, s.state.Ports["primary"]))
	if err != nil {
		return nil, err
	}
	return c, c.await(ctx, func(ctx context.Context) error {
		db, err := pgx.Connect(ctx, s.url("primary", "postgres"))
		if err != nil {
			return err
		}
		defer db.Close(context.WithoutCancel(ctx))
		var there bool
		if err = db.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = 'ordergate'").Scan(&there); err != nil {
			return err
		}
		if !there {
			if _, err = db.Exec(ctx, "CREATE DATABASE ordergate"); err != nil {
				return err
			}
		}
		names := []string{}
		for _, r := range s.cfg.Replicas {
			names = append(names, r.Name)
		}
		_, err = db.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE slot_type = 'physical' AND NOT active AND slot_name <> ALL ($1)`, names)
		return err
	})
}

func (s *Stack) initdb() error {
	tmp := s.path("primary.new") // renamed when complete
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700), s.chown(tmp)); err != nil {
		return err
	}
	password := s.path("primary.password")
	defer func() { _ = os.Remove(password) }()
	if err := errors.Join(os.WriteFile(password, []byte(s.state.Password), 0o600), s.chown(password)); err != nil {
		return err
	}
	locale := "C.UTF-8"
	if runtime.GOOS == "darwin" {
		locale = "C" // has no C.UTF-8; sorts the same
	}
	cmd := s.command(s.cfg.Dir, filepath.Join(s.bin, "initdb"), "-D", tmp, "-U", "ordergate", "--pwfile", password,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", locale)
	DieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.fork(cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out.Bytes())
	}
	return os.Rename(tmp, s.path("primary"))
}

// postgres starts a server on its data with this configuration.
func (s *Stack) postgres(name, conf string) (*child, error) {
	dir := s.path(name)
	file := filepath.Join(dir, "postgresql.conf")
	if err := errors.Join(forgetPostmaster(dir), os.WriteFile(file, []byte(conf), 0o600), s.chown(file)); err != nil {
		return nil, err
	}
	return s.spawn(name, s.command(dir, filepath.Join(s.bin, "postgres"), "-D", dir))
}

// forgetPostmaster removes the pid file of a postmaster that crashed: PostgreSQL would refuse to start if any process of the
// user, such as another replica, has that pid by now. A server that someone started by hand on the folder still listens.
func forgetPostmaster(dir string) error {
	file := filepath.Join(dir, "postmaster.pid")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if lines := strings.Split(string(b), "\n"); len(lines) > 3 {
		if conn, err := net.DialTimeout("tcp", "127.0.0.1:"+lines[3], time.Second); err == nil {
			conn.Close()
			return nil // let PostgreSQL judge
		}
	}
	return os.Remove(file)
}

// startReplica returns when the replica answers and streams. If it cannot follow the primary any more it is copied anew.
func (s *Stack) startReplica(ctx context.Context, r Replica) (*child, error) {
	db, err := pgx.Connect(ctx, s.url("primary", "postgres"))
	if err != nil {
		return nil, err
	}
	defer db.Close(context.WithoutCancel(ctx))
	if exists(s.path(r.Name)) {
		var kept bool
		if err = db.QueryRow(ctx, `SELECT count(*) > 0 FROM pg_replication_slots
			WHERE slot_name = $1 AND wal_status <> 'lost'`, r.Name).Scan(&kept); err != nil {
			return nil, err
		}
		err = errors.New("the primary has not kept what it missed")
		if kept {
			var c *child
			if c, err = s.follow(ctx, db, r); err == nil || ctx.Err() != nil {
				return c, err
			}
			if err := end(ctx, s.cfg.Dir, r.Name); err != nil {
				return nil, err
			}
		}
		s.cfg.Progress(fmt.Sprintf("%s cannot go on (%s)", r.Name, strings.SplitN(err.Error(), "\n", 2)[0]))
	}
	s.cfg.Progress("copying the primary to " + r.Name + ", once")
	if err = s.copyPrimary(ctx, db, r.Name); err != nil {
		return nil, fmt.Errorf("copy the primary to replica %s: %w", r.Name, err)
	}
	return s.follow(ctx, db, r)
}

// follow starts the replica on its data and waits until it answers and streams from primary.
func (s *Stack) follow(ctx context.Context, primary *pgx.Conn, r Replica) (*child, error) {
	ctx, cancel := context.WithTimeout(ctx, followTimeout+r.ApplyDelay)
	defer cancel()
	c, err := s.postgres(r.Name, fmt.Sprintf(serverConf, s.state.Ports[r.Name])+fmt.Sprintf(replicaConf, s.state.Ports["primary"],
		s.state.Password, r.Name, r.Name, r.ApplyDelay.Milliseconds()))
	if err != nil {
		return nil, err
	}
	return c, c.await(ctx, func(ctx context.Context) error {
		db, err := pgx.Connect(ctx, s.url(r.Name, "postgres"))
		if err != nil {
			return err
		}
		defer db.Close(context.WithoutCancel(ctx))
		var active bool
		err = primary.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", r.Name).Scan(&active)
		if err == nil && !active {
			err = errors.New("it does not stream")
		}
		return err
	})
}

// copyPrimary makes the data of a replica from the running primary, as pg_basebackup would, and a slot that keeps the WAL which
// the replica needs from there on.
func (s *Stack) copyPrimary(ctx context.Context, primary *pgx.Conn, name string) error {
	dir, tmp := s.path(name), s.path(name+".new")
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(tmp)); err != nil {
		return err
	}
	for _, statement := range []string{
		"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
		"SELECT pg_create_physical_replication_slot($1, true)",
		"SELECT pg_backup_start($1, true)",
	} {
		if _, err := primary.Exec(ctx, statement, name); err != nil {
			return err
		}
	}
	if err := s.copyData(s.path("primary"), tmp); err != nil {
		return err
	}
	var label string
	if err := primary.QueryRow(ctx, "SELECT labelfile FROM pg_backup_stop(false)").Scan(&label); err != nil {
		return err
	}
	for file, content := range map[string]string{"backup_label": label, "standby.signal": ""} {
		file = filepath.Join(tmp, file)
		if err := errors.Join(os.WriteFile(file, []byte(content), 0o600), s.chown(file)); err != nil {
			return err
		}
	}
	return os.Rename(tmp, dir)
}

// copyData copies a data folder that is in use, but not the files that a server makes anew or must not inherit.
func (s *Stack) copyData(from, to string) error {
	skipped := map[string]bool{"pg_wal": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true, "pg_serial": true,
		"pg_snapshots": true, "pg_stat_tmp": true, "pg_subtrans": true, "postmaster.pid": true, "postmaster.opts": true}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // dropped meanwhile; the WAL knows
			return nil
		} else if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		target := filepath.Join(to, rel)
		top, _, nested := strings.Cut(rel, string(filepath.Separator))
		switch {
		case d.IsDir() && nested && skipped[top]:
			return fs.SkipDir
		case d.IsDir():
			return errors.Join(os.Mkdir(target, 0o700), s.chown(target))
		case skipped[top]:
			return nil
		}
		if err = copyFile(path, target); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, s.chown(target))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// chown gives a file that we made to the user of the children.
func (s *Stack) chown(path string) error {
	if s.user == nil {
		return nil
	}
	return os.Lchown(path, int(s.user.Uid), int(s.user.Gid))
}

// url is the address of a database on the primary or a replica.
func (s *Stack) url(server, database string) string {
	return fmt.Sprintf("postgres://ordergate:%s@127.0.0.1:%d/%s?sslmode=disable", s.state.Password, s.state.Ports[server], database)
}
