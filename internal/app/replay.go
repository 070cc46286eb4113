package app

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/replay"
)

// replayAll is `ordergate replay`. Without ORDERGATE_PRIMARY_URL it works on the stack that `ordergate run` runs in this folder.
func replayAll(ctx context.Context, proc process) error {
	cfg, err := proc.cfg.orRunning()
	if err != nil {
		return err
	}
	c := replay.Config{}
	show, end := progressBar(proc.logs)
	if show != nil {
		c.Progress = func(p replay.Progress) { show(progress{p.Step, p.Number, p.Steps, p.Done, p.Expected}) }
	}
	begin := time.Now()
	report, err := replayOnce(ctx, cfg, c)
	end()
	if err != nil {
		return err
	}
	return printReplay(proc, report, time.Since(begin))
}

// replayOnce rebuilds the installation of cfg. c has the rest.
func replayOnce(ctx context.Context, cfg Config, c replay.Config) (replay.Report, error) {
	pool, err := pg.Connect(ctx, cfg.PrimaryURL, 2, pg.ReplaySession, nil)
	if err != nil {
		return replay.Report{}, err
	}
	defer pool.Close()
	c.Pool = pool
	return replay.Run(ctx, c)
}

func printReplay(proc process, report replay.Report, took time.Duration) error {
	w := tabwriter.NewWriter(proc.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tHISTORIES\tEVENTS\tWRITTEN\tDELETED")
	for _, t := range report.Tables {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", t.Name, t.Histories, t.Events, t.Written, t.Deleted)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(proc.stdout, "\nrebuilt in %v; the caches begin generation %d\n", took.Round(time.Millisecond), report.Generation)
	return err
}
