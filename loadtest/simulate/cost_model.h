// What time things take in a server: its steps, by their shape, and the way of a request to the engine and of
// a token back. Coefficients are fitted to measurements; what the coefficients do not explain is kept as a
// spread and drawn from, because percentiles are made of it. Knows no scheduler and no clock.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "engine/batch.h"

namespace serval::load {

// The distribution of a measured quantity: the means of equal shares of its sorted values. Drawing a share at
// random keeps the mean exactly and the percentiles nearly.
struct Spread {
  std::vector<double> shares;  // ascending; empty: nothing was measured

  static Spread of(std::vector<double> values);
  double draw(std::mt19937_64& random, double when_empty) const;
};

// What a step's time depends on.
struct StepShape {
  double rows = 0;     // tokens computed
  double seqs = 0;     // sequences in the step
  double context = 0;  // positions all rows together attend to, in thousands
};
StepShape shape_of(const Batch& batch);

struct StepSample {
  StepShape shape;
  double milliseconds = 0;
};

// milliseconds = step + row * rows + seq * seqs + context * context, times what was measured over that in
// steps of about that length: a thread that takes a core away for a while lengthens a short step by more.
struct StepCost {
  struct Residual {
    double up_to_ms = 0;  // of the predicted time
    Spread ratio;         // measured / predicted
  };
  double step = 1, row = 0, seq = 0, context = 0;
  std::vector<Residual> residuals;  // by length, ascending; empty: every step takes its mean

  double mean_ms(const StepShape& shape) const {
    return step + row * shape.rows + seq * shape.seqs + context * shape.context;
  }
  double draw_ms(const StepShape& shape, std::mt19937_64& random) const;
};
// Least squares on relative error (a short step counts as much as a long one) around the mean; no coefficient
// is negative. Throws std::runtime_error with fewer samples than coefficients.
StepCost fit_step_cost(const std::vector<StepSample>& samples);

struct CostModel {
  StepCost decode;  // steps in which every sequence has one row
  StepCost prompt;  // all others
  // Milliseconds. From the client's intended time to the engine's line, of a request that finds the engine
  // idle, or in a step; from the end of a step to the client, of a request's first and of its last token.
  Spread arrival_idle, arrival_busy, first_token, last_token;

  const StepCost& of(const StepShape& shape) const { return shape.rows > shape.seqs ? prompt : decode; }
};
// Throws std::runtime_error when there are too few steps of either kind.
CostModel fit_steps(const std::vector<StepSample>& samples);

std::string cost_json(const CostModel& cost);
CostModel read_cost(const std::string& path);  // throws std::runtime_error with a sentence

}  // namespace serval::load
