package devstack

import (
	"bytes"
	"cmp"
	"context"
	_ "embed" // server.conf, replica.conf
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// oldest is the oldest major version of PostgreSQL that the schema is tested with.
const oldest = 15

// followTimeout bounds how long a replica may take, beyond its apply delay, to replay its WAL and then to stream again. After that
// the replica is rebuilt.
const followTimeout = 30 * time.Second

// serverConf is the configuration of the primary and the replicas. Other settings have PostgreSQL's defaults: fsync and
// synchronous_commit are on. A replica that is away for longer than 1 GB of WAL is rebuilt.
//
//go:embed server.conf
var serverConf string

//go:embed replica.conf
var replicaConf string

// postgresBin returns the folder with initdb and postgres of the major version that made the data; without data, of the newest.
func postgresBin(data string) (string, error) {
	made, _ := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	want, _ := strconv.Atoi(strings.TrimSpace(string(made)))
	var installed []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin"} {
		found, _ := filepath.Glob(filepath.Join(pattern, "initdb"))
		installed = append(installed, found...)
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		installed = append(installed, initdb)
	}
	bin, newest := "", 0
	for _, initdb := range installed {
		// It may be a link or a wrapper: PostgreSQL finds its files from where the program really is.
		initdb, _ = filepath.EvalSymlinks(initdb)
		says, _ := exec.Command(filepath.Join(filepath.Dir(initdb), "postgres"), "--version").Output()
		version, _ := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(says)))
		if version > newest && (want == 0 || version == want) {
			bin, newest = filepath.Dir(initdb), version
		}
	}
	switch {
	case newest >= oldest:
		return bin, nil
	case want > 0:
		return "", fmt.Errorf("the data was made by PostgreSQL %d, which is not installed any more: install it or remove the data folder", want)
	default:
		return "", fmt.Errorf("PostgreSQL %d or newer is needed (initdb and postgres): install it", oldest)
	}
}

// startPrimary makes the primary at the first start and recovers it after a crash. It makes the database ordergate if it is missing
// and drops the slots of replicas that are not configured.
func (s *Stack) startPrimary(ctx context.Context) (*child, error) {
	if !exists(s.path("primary")) {
		s.cfg.Progress("making the primary database, once")
		if err := s.initdb(ctx); err != nil {
			return nil, err
		}
	}
	return s.postgres(ctx, "primary", fmt.Sprintf(serverConf, s.state.Ports["primary"]), func(ctx context.Context) error {
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

func (s *Stack) initdb(ctx context.Context) error {
	tmp := s.path("primary.new") // renamed when complete
	if err := cmp.Or(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700), s.chown(tmp)); err != nil {
		return err
	}
	password := s.path("primary.password")
	defer func() { _ = os.Remove(password) }()
	if err := cmp.Or(os.WriteFile(password, []byte(s.state.Password), 0o600), s.chown(password)); err != nil {
		return err
	}
	locale := "C.UTF-8"
	if runtime.GOOS == "darwin" {
		locale = "C" // has no C.UTF-8; sorts the same
	}
	if err := s.run(ctx, "initdb", "-D", tmp, "-U", "ordergate", "--pwfile", password, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", locale); err != nil {
		return err
	}
	return os.Rename(tmp, s.path("primary"))
}

// run runs a program of PostgreSQL to its end. The error has its output. When ctx ends, so does all that the program forked: a child of
// pg_basebackup would keep the output open, and we would wait for it.
func (s *Stack) run(ctx context.Context, program string, args ...string) error {
	cmd := s.asChild(exec.CommandContext(ctx, filepath.Join(s.bin, program), args...), s.cfg.Dir)
	cmd.Env = append(cmd.Env, "PGPASSWORD="+s.state.Password)
	DieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = stopTimeout
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.fork(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out.Bytes())
	}
	return nil
}

// postgres starts a server on its data with this configuration.
func (s *Stack) postgres(ctx context.Context, name, conf string, ready func(context.Context) error) (*child, error) {
	dir := s.path(name)
	file := filepath.Join(dir, "postgresql.conf")
	if err := cmp.Or(forgetPostmaster(dir), os.WriteFile(file, []byte(conf), 0o600), s.chown(file)); err != nil {
		return nil, err
	}
	return s.launch(ctx, name, s.asChild(exec.Command(filepath.Join(s.bin, "postgres"), "-D", dir), dir), ready)
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
		return nil, fmt.Errorf("%w: %w", errPrimaryLost, err)
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
		return nil, fmt.Errorf("copy the primary to %s: %w", r.Name, err)
	}
	return s.follow(ctx, db, r)
}

// follow starts the replica on its data and waits until it answers and streams from primary.
func (s *Stack) follow(ctx context.Context, primary *pgx.Conn, r Replica) (*child, error) {
	ctx, cancel := context.WithTimeout(ctx, followTimeout+r.ApplyDelay)
	defer cancel()
	conf := fmt.Sprintf(serverConf, s.state.Ports[r.Name]) +
		fmt.Sprintf(replicaConf, s.state.Ports["primary"], s.state.Password, r.Name, r.Name, r.ApplyDelay.Milliseconds())
	return s.postgres(ctx, r.Name, conf, func(ctx context.Context) error {
		var active bool
		err := primary.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", r.Name).Scan(&active)
		if err != nil {
			return fmt.Errorf("%w: %w", errPrimaryLost, err)
		}
		db, err := pgx.Connect(ctx, s.url(r.Name, "postgres"))
		if err != nil {
			return err
		}
		defer db.Close(context.WithoutCancel(ctx))
		if !active {
			return errors.New("it does not stream")
		}
		return nil
	})
}

// copyPrimary makes the data of a replica from the running primary, and a slot that keeps the WAL that the replica needs from there
// on.
func (s *Stack) copyPrimary(ctx context.Context, primary *pgx.Conn, name string) error {
	dir, tmp := s.path(name), s.path(name+".new")
	if err := cmp.Or(os.RemoveAll(dir), os.RemoveAll(tmp), os.Mkdir(tmp, 0o700), s.chown(tmp)); err != nil {
		return err
	}
	for _, statement := range []string{
		"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
	} {
		if _, err := primary.Exec(ctx, statement, name); err != nil {
			return err
		}
	}
	if err := s.run(ctx, "pg_basebackup", "-D", tmp, "-h", "127.0.0.1", "-p", strconv.Itoa(s.state.Ports["primary"]), "-U", "ordergate",
		"--checkpoint", "fast", "--wal-method", "stream", "--create-slot", "--slot", name); err != nil {
		return err
	}
	signal := filepath.Join(tmp, "standby.signal")
	if err := cmp.Or(os.WriteFile(signal, nil, 0o600), s.chown(signal)); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// chown gives a file that we made to the user of the children.
func (s *Stack) chown(path string) error {
	if s.user == nil {
		return nil
	}
	return os.Lchown(path, int(s.user.Uid), int(s.user.Gid))
}

func (s *Stack) url(server, database string) string {
	return fmt.Sprintf("postgres://ordergate:%s@127.0.0.1:%d/%s?sslmode=disable", s.state.Password, s.state.Ports[server], database)
}
