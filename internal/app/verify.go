package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/verify"
)

var (
	errViolations   = errors.New("violations found")
	errCannotVerify = errors.New("cannot verify")
)

// verifyAll is `ordergate verify`. Without ORDERGATE_PRIMARY_URL it looks at the stack that `ordergate run` runs in this folder.
func verifyAll(flags *flag.FlagSet) runner {
	asJSON := flags.Bool("json", false, "prints the report as JSON")
	provider := flags.String("psp", "", "`URL` of the payment provider; without it ORDERGATE_PSP_URL")
	return func(ctx context.Context, proc process) error {
		cfg, err := proc.cfg.orRunning()
		if err != nil {
			return err
		}
		cfg.PSPURL = cmp.Or(*provider, cfg.PSPURL)
		c := verify.Config{}
		show, end := progressBar(proc.logs)
		if show != nil {
			c.Progress = func(p verify.Progress) { show(progress{p.Invariant, p.Number, p.Invariants, p.LookedAt, p.Expected}) }
		}
		report, err := verifyOnce(ctx, cfg, c)
		end()
		if err != nil {
			return err
		}
		if *asJSON {
			e := json.NewEncoder(proc.stdout)
			e.SetIndent("", "  ")
			err = e.Encode(report)
		} else {
			err = printReport(proc.stdout, report)
		}
		if n := report.Violations(); err == nil && n > 0 {
			err = fmt.Errorf("%w: %d", errViolations, n)
		}
		return err
	}
}

// verifyOnce looks at the installation of cfg. c has the rest.
func verifyOnce(ctx context.Context, cfg Config, c verify.Config) (verify.Report, error) {
	pool, err := pg.Connect(ctx, cfg.PrimaryURL, 2, pg.ReadSession, nil)
	if err != nil {
		return verify.Report{}, err
	}
	defer pool.Close()
	if err = pool.Ping(ctx); err != nil {
		return verify.Report{}, fmt.Errorf("cannot connect to the primary: %w", err)
	}
	c.Pool, c.ProviderURL, c.Consumers = pool, cfg.PSPURL, map[string][]string{}
	for _, consumer := range allConsumers(&inventory.Inventory{}, &command.Saga{}, nil) {
		c.Consumers[consumer.Topic] = append(c.Consumers[consumer.Topic], consumer.Name)
	}
	return verify.Run(ctx, c)
}

// printReport writes the table of invariants, then the violations.
func printReport(out io.Writer, report verify.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INVARIANT\tLOOKED AT\tVIOLATIONS\tPROMISE")
	for _, r := range report.Invariants {
		if r.NotChecked != "" {
			fmt.Fprintf(w, "%s\t-\tnot checked\t%s\n", r.Name, r.NotChecked)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", r.Name, r.LookedAt, r.Violations, r.Promise)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if report.ParkedMessages > 0 {
		fmt.Fprintf(out, "\n%d messages are parked: ordergate parked list\n", report.ParkedMessages)
	}
	for _, r := range report.Invariants {
		if r.Violations == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s: %d\n", r.Name, r.Violations)
		for _, v := range r.First {
			fmt.Fprintf(out, "  %s  %s\n", v.ID, v.What)
		}
		if more := r.Violations - int64(len(r.First)); more > 0 {
			fmt.Fprintf(out, "  and %d more\n", more)
		}
	}
	return nil
}
