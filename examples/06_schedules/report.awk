# results.tsv -> report.md on standard output and a plot in the file `svg`.
# Columns: budget in percent, shape, seed, peak, steps, validation loss.

BEGIN {
  shape_count = split(shapes, shape_name, " ")
  seed_count = split(seeds, seed_name, " ")
  peak_count = split(peaks, peak_name, " ")
  budget_count = split("5 25 100", budget_name, " ")
  split("#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b", colour, " ")
}

{ loss[$1, $2, $3, $4] = $6 + 0; updates[$1] = $5 }
$1 == 25 && $3 == 1 && (!($2 in best_peak) || $6 + 0 < least[$2]) { best_peak[$2] = $4; least[$2] = $6 + 0 }

# The mean over seeds and its deviation, of a shape at its best peak.
function measure(b, s,   i, x, sum, squares) {
  sum = 0; squares = 0
  for (i = 1; i <= seed_count; ++i) sum += loss[b, s, seed_name[i], best_peak[s]]
  mean[b, s] = sum / seed_count
  for (i = 1; i <= seed_count; ++i) {
    x = loss[b, s, seed_name[i], best_peak[s]] - mean[b, s]
    squares += x * x
  }
  deviation[b, s] = seed_count > 1 ? sqrt(squares / (seed_count - 1)) : 0
}

# The deviation of one run, of all shapes together.
function pooled(b,   i, squares) {
  squares = 0
  for (i = 1; i <= shape_count; ++i) squares += deviation[b, shape_name[i]] ^ 2
  return sqrt(squares / shape_count)
}

function reading(b,   i, s, best, level, worse) {
  best = shape_name[1]
  for (i = 2; i <= shape_count; ++i) if (mean[b, shape_name[i]] < mean[b, best]) best = shape_name[i]
  for (i = 1; i <= shape_count; ++i) {
    s = shape_name[i]
    if (s == best) continue
    if (mean[b, s] - mean[b, best] < pooled(b)) level = level (level == "" ? "" : ", ") s
    else worse = worse (worse == "" ? "" : ", ") s sprintf(" (+%.4f)", mean[b, s] - mean[b, best])
  }
  printf "- %d%% (%d updates): the lowest mean is that of %s; the deviation of a seed is %.4f.", b, updates[b], best, pooled(b)
  if (level != "") printf " Less than that away, so not told apart: %s.", level
  if (worse != "") printf " Further away: %s.", worse
  printf "\n"
}

function plot(   b, i, s, x, y, low, high, points) {
  low = 1e9; high = -1e9
  for (b = 1; b <= budget_count; ++b) for (i = 1; i <= shape_count; ++i) {
    s = shape_name[i]
    if (mean[budget_name[b], s] - deviation[budget_name[b], s] < low) low = mean[budget_name[b], s] - deviation[budget_name[b], s]
    if (mean[budget_name[b], s] + deviation[budget_name[b], s] > high) high = mean[budget_name[b], s] + deviation[budget_name[b], s]
  }
  if (high <= low) high = low + 1
  print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"400\" font-family=\"sans-serif\" font-size=\"12\">" >svg
  print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/><text x=\"70\" y=\"22\" font-size=\"14\">validation loss at the end, mean and deviation of " seed_count " seeds</text>" >svg
  print "<path d=\"M70 40 V350 H500\" fill=\"none\" stroke=\"black\"/>" >svg
  printf "<text x=\"64\" y=\"44\" text-anchor=\"end\">%.3f</text><text x=\"64\" y=\"354\" text-anchor=\"end\">%.3f</text>\n", high, low >svg
  for (b = 1; b <= budget_count; ++b)
    printf "<text x=\"%d\" y=\"370\" text-anchor=\"middle\">%d%% of the budget</text>\n", 110 + (b - 1) * 170, budget_name[b] >svg
  for (i = 1; i <= shape_count; ++i) {
    s = shape_name[i]; points = ""
    for (b = 1; b <= budget_count; ++b) {
      x = 110 + (b - 1) * 170 + (i - (shape_count + 1) / 2) * 7
      y = 350 - 310 * (mean[budget_name[b], s] - low) / (high - low)
      points = points sprintf("%.1f,%.1f ", x, y)
      printf "<path d=\"M%.1f %.1f v%.1f\" stroke=\"%s\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x,
        y - 310 * deviation[budget_name[b], s] / (high - low), 620 * deviation[budget_name[b], s] / (high - low), colour[i], x, y, colour[i] >svg
    }
    printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-opacity=\"0.4\"/>\n", points, colour[i] >svg
    printf "<text x=\"515\" y=\"%d\" fill=\"%s\">%s</text>\n", 60 + 20 * i, colour[i], s >svg
  }
  print "</svg>" >svg
}

END {
  for (b = 1; b <= budget_count; ++b) for (i = 1; i <= shape_count; ++i) measure(budget_name[b], shape_name[i])
  printf "Validation loss after the last update, mean over %d seeds and deviation of one seed. 100%% is %d updates.\n\n", seed_count, steps
  printf "| schedule | best peak |"
  for (b = 1; b <= budget_count; ++b) printf " %d%% |", budget_name[b]
  printf "\n|---|---|"
  for (b = 1; b <= budget_count; ++b) printf "---|"
  printf "\n"
  for (i = 1; i <= shape_count; ++i) {
    s = shape_name[i]
    printf "| %s | %s |", s, best_peak[s]
    for (b = 1; b <= budget_count; ++b) printf " %.4f ± %.4f |", mean[budget_name[b], s], deviation[budget_name[b], s]
    printf "\n"
  }
  printf "\nReading:\n\n"
  for (b = 1; b <= budget_count; ++b) reading(budget_name[b])
  edge = ""
  for (i = 1; i <= shape_count; ++i) {
    s = shape_name[i]
    if (best_peak[s] == peak_name[1] || best_peak[s] == peak_name[peak_count]) edge = edge (edge == "" ? "" : ", ") s
  }
  if (edge != "") printf "- The best peak lies at the edge of those tried, so a better one may exist: %s.\n", edge
  plot()
}
