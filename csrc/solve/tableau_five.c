/* Explicit Runge–Kutta methods of order five. */
#include "solve/tableau.h"

#define R TD_ROWS
#define TABLE(...) .table = &(const td_tableau){__VA_ARGS__}

extern const td_method td_method_dopri5, td_method_dopri5_shampine, td_method_tsit5;

#define DOPRI5_A                                                                                        \
  R(1. / 5,                                                                                             \
    3. / 40, 9. / 40,                                                                                   \
    44. / 45, -56. / 15, 32. / 9,                                                                       \
    19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729,                                          \
    9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656,                                 \
    35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84)
#define DOPRI5_B R(35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84, 0)

/* Hairer's quartic y + θ(Δ + (1−θ)(β + θ(Δ − hk₇ − β + (1−θ) h Σ dᵢkᵢ))), Δ = y₁ − y, β = hk₁ − Δ, in powers
 * of θ: stage i has bᵢ(3θ² − 2θ³) + [i = 1](θ − 2θ² + θ³) + [i = 7](θ³ − θ²) + dᵢ θ²(1 − θ)². */
#define DOPRI5_ROW(b, d, first, last) \
  (first), 3 * (b) - 2 * (first) - (last) + (d), -2 * (b) + (first) + (last) - 2 * (d), (d)
#define DOPRI5_DENSE                                                                                    \
  R(DOPRI5_ROW(35. / 384, -12715105075. / 11282082432, 1, 0), 0, 0, 0, 0,                               \
    DOPRI5_ROW(500. / 1113, 87487479700. / 32700410799, 0, 0),                                          \
    DOPRI5_ROW(125. / 192, -10690763975. / 1880347072, 0, 0),                                           \
    DOPRI5_ROW(-2187. / 6784, 701980252875. / 199316789632, 0, 0),                                      \
    DOPRI5_ROW(11. / 84, -1453857185. / 822651844, 0, 0),                                               \
    DOPRI5_ROW(0, 69997945. / 29380423, 0, 1))

const td_method td_method_dopri5 = {
  .name = "dopri5", .source = "Dormand and Prince 1980, error weights as in Hairer's DOPRI5",
  .family = &td_family_explicit, .stages = 7, .order = 5, .error_order = 4, .dense_order = 4,
  TABLE(.stages = 7, .terms = 4, .fsal = true, .a = DOPRI5_A, .b = DOPRI5_B, .dense = DOPRI5_DENSE,
        .e = R(71. / 57600, 0, -71. / 16695, 71. / 1920, -17253. / 339200, 22. / 525, -1. / 40)),
};
const td_method td_method_dopri5_shampine = {
  .name = "dopri5_shampine",
  .source = "Dormand and Prince 1980, embedded weights of Shampine 1986 (as in torchdiffeq)",
  .family = &td_family_explicit, .stages = 7, .order = 5, .error_order = 4, .dense_order = 4,
  TABLE(.stages = 7, .terms = 4, .fsal = true, .a = DOPRI5_A, .b = DOPRI5_B, .dense = DOPRI5_DENSE,
        .e = R(35. / 384 - 1951. / 21600, 0, 500. / 1113 - 22642. / 50085, 125. / 192 - 451. / 720,
               -2187. / 6784 + 12231. / 42400, 11. / 84 - 649. / 6300, -1. / 60)),
};
const td_method td_method_tsit5 = {
  .name = "tsit5", .source = "Tsitouras 2011", .family = &td_family_explicit, .stages = 7, .order = 5,
  .error_order = 4, .dense_order = 4,
  TABLE(.stages = 7, .terms = 4, .fsal = true,
        .a = R(0.161,
               -0.008480655492356989, 0.335480655492357,
               2.8971530571054935, -6.359448489975075, 4.3622954328695815,
               5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525,
               5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383,
               0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
               2.324710524099774),
        .b = R(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
               2.324710524099774, 0),
        .e = R(0.00178001105222577714, 0.0008164344596567469, -0.007880878010261995, 0.1447110071732629,
               -0.5823571654525552, 0.45808210592918697, -1. / 66),
        .dense = R(1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216,
                   0, 0.13169999999999998, -0.2234, 0.1017,
                   0, 3.9302962368947516, -5.941033872131505, 2.490627285651253,
                   0, -12.411077166933676, 30.33818863028232, -16.548102889244902,
                   0, 37.50931341651104, -88.1789048947664, 47.37952196281928,
                   0, -27.896526289197286, 65.09189467479366, -34.87065786149661,
                   0, 1.5, -4, 2.5)),
};
